"""What the terminal shows while a stage runs."""

import io

from rich.console import Console

from sarc_ray.screen import stage_progress


def shown(*told, terminal=True):
    """What is drawn when a stage tells this, control codes taken out."""
    console = Console(file=io.StringIO(), force_terminal=terminal, width=120, color_system=None)
    with stage_progress(console, "score") as tell:
        for what, done, total in told:
            tell(what, done, total)
    return console.file.getvalue()


def test_details_have_a_line_of_their_own():
    text = shown(("radiographs; scored 440, rejected 7; 92.1/s, 0:03:10 left", 447, 500))
    first, second = [line for line in text.splitlines() if "447/500" in line or "scored 440" in line][-2:]
    assert "447/500 radiographs" in first
    assert "scored" not in first
    assert second.strip().startswith("scored 440, rejected 7; 92.1/s, 0:03:10 left")


def test_what_has_no_details_has_one_line():
    text = shown(("radiographs; scored 1", 1, 2), ("members", 3, 4))
    assert "3/4" in text
    assert "members" in text.rpartition("3/4")[2]
    assert "scored" not in text.rpartition("3/4")[2]


def test_nothing_is_drawn_where_nobody_looks():
    assert shown(("radiographs; scored 1", 1, 2), terminal=False) == ""

import logging
import threading
import warnings

import pydicom.misc
import pytest

from sarc_ray.imaging.quiet import quiet_pydicom


def complain() -> None:
    pydicom.misc.warn_and_log("a header is odd")


def test_pydicom_is_silent_inside_and_nowhere_else(caplog: pytest.LogCaptureFixture) -> None:
    with quiet_pydicom():
        complain()  # a warning would be an error here
    assert caplog.text == ""
    with pytest.warns(UserWarning, match="a header is odd"):
        complain()
    assert "a header is odd" in caplog.text


def test_the_warning_names_the_place_of_its_cause() -> None:
    with quiet_pydicom():
        pass
    with pytest.warns(UserWarning, match="odd") as caught:
        complain()
    assert caught[0].filename == __file__


def test_nothing_of_the_process_changes() -> None:
    logger = logging.getLogger("pydicom")
    before = (list(warnings.filters), warnings.showwarning, logger.level, logger.disabled)
    with quiet_pydicom():
        assert (list(warnings.filters), warnings.showwarning, logger.level, logger.disabled) == before
        with pytest.warns(DeprecationWarning, match="ours"):
            warnings.warn("ours", DeprecationWarning, stacklevel=1)
    assert (list(warnings.filters), warnings.showwarning, logger.level, logger.disabled) == before


def test_contexts_nest_and_end_with_an_error() -> None:
    def fail() -> None:
        with quiet_pydicom():
            with quiet_pydicom():
                complain()
            complain()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    with pytest.warns(UserWarning, match="odd"):
        complain()


def test_another_thread_is_still_heard() -> None:
    heard: list[str] = []

    def other() -> None:
        try:
            complain()
        except UserWarning as warning:  # warnings are errors in this process
            heard.append(str(warning))

    with quiet_pydicom():
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
    assert heard == ["a header is odd"]

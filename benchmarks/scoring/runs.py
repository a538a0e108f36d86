"""The bench: a folder with objects and bundles, an S3 server in front of it, and contenders that are sent there."""

from __future__ import annotations

import contextlib
import itertools
import json
import secrets
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from sarc_ray.object_server import environment_variables, serve_s3
from sarc_ray.privacy import create_key_file
from scoring import archives, contender, models
from scoring.archives import BUCKET, Archive
from scoring.contender import Outcome

DEMO, FEW = "demo", "few"
_MEMBERS_OF_FEW = 2
_URL = f"s3://{BUCKET}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Sizes:
    """How much is drawn, learned and run."""

    distinct: int
    pool: int
    members: int
    pictures: int
    epochs: int
    rounds: int
    compared: dict[str, int]
    looped: dict[str, int]
    lengths: tuple[int, ...]
    scaled: dict[str, int]
    planned: dict[str, int]
    plan_sample: int


@dataclass(kw_only=True)
class Bench:
    """What sections share."""

    folder: Path
    sizes: Sizes
    cores: int
    # Keeps the tables of two runs over one folder apart: a sealed table would be found done.
    _session: str = field(default_factory=lambda: secrets.token_hex(4))
    _numbers: Iterator[int] = field(default_factory=itertools.count)
    _starts: dict[tuple[str, str, int], float] = field(default_factory=dict)

    def prepare(self, wanted: Mapping[Archive, set[int]]) -> None:
        """Draw objects, learn networks, make a key; what the folder has already is left.

        Args:
            wanted: how many rows manifests of each archive shall have. They must be there before a server looks: it
                keeps what it found in a folder for minutes.
        """
        for group in (archives.LARGE, (archives.SMALL,)):
            chosen = [archive for archive in group if archive in wanted]
            if chosen:
                archives.draw_pool(self.folder, group, n=self.n_pool(chosen[0]), cores=self.cores)
        for archive, lengths in wanted.items():
            for n in sorted(lengths | {1}):
                archives.write_manifest(self.folder, archive, n=n, n_pool=self.n_pool(archive))
        bundles = {self.sizes.members: self._bundle_folder(DEMO), _MEMBERS_OF_FEW: self._bundle_folder(FEW)}
        if not all((Path(uri) / "bundle.json").exists() for uri in bundles.values()):
            models.write_bundles(bundles, pictures=self.sizes.pictures, epochs=self.sizes.epochs, cores=self.cores)
        if not self._key_file.exists():
            create_key_file(str(self._key_file))

    @contextlib.contextmanager
    def served(self) -> Iterator[None]:
        """An S3 server on this machine alone, for this process and those that it starts."""
        with serve_s3(self.folder / "s3", bucket=BUCKET) as environment, environment_variables(environment):
            yield

    def n_pool(self, archive: Archive) -> int:
        """Objects that are distinct."""
        return self.sizes.pool if archive is archives.SMALL else self.sizes.distinct

    def run(
        self,
        name: str,
        archive: Archive,
        n: int,
        *,
        bundle: str = DEMO,
        settings: Sequence[str] = (),
        watch_object_store: bool = False,
    ) -> tuple[Outcome, str]:
        """Let a contender score ``n`` rows; what it took, and where its table lies."""
        number = next(self._numbers)
        table = f"{_URL}/tables/{self._session}-{number}" + (".parquet" if name == "plain_script" else "")
        request = {
            "bundle": f"{_URL}/bundles/{bundle}",
            "manifest": archives.manifest_url(archive, n),
            "table": table,
            "settings": [f"score.key_file={self._key_file}", *settings],
            "processes": self.cores,
            "watch_object_store": watch_object_store,
        }
        return contender.run(name, request), table

    def start_up_s(self, name: str, archive: Archive, *, bundle: str = DEMO, settings: Sequence[str] = ()) -> float:
        """Seconds of a run over one picture: imports, engine, bundle, and all that does not grow with the rows."""
        key = (name, archive.name + bundle + ",".join(settings), self.cores)
        if key not in self._starts:
            found = [self.run(name, archive, 1, bundle=bundle, settings=settings)[0] for _ in range(self.sizes.rounds)]
            self._starts[key] = statistics.median(outcome.wall_s for outcome in found)
        return self._starts[key]

    def note(self, **constants: float) -> None:
        """Keep constants for the paper model, also for later runs over the same folder."""
        self._notes.write_text(json.dumps(self.constants() | constants), encoding="utf-8")

    def constants(self) -> dict[str, float]:
        """What was noted so far."""
        return json.loads(self._notes.read_text(encoding="utf-8")) if self._notes.exists() else {}

    @property
    def _notes(self) -> Path:
        return self.folder / "constants.json"

    @property
    def _key_file(self) -> Path:
        return self.folder / "patient-keys.key"

    def _bundle_folder(self, name: str) -> str:
        return str(self.folder / "s3" / BUCKET / "bundles" / name)

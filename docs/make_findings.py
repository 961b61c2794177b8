"""Write docs/findings.md, its part of the README and findings.json of results: `make findings`.

docs/findings/paper.yaml says what the paper claims and which results speak to it. Every verdict and
every sentence about results comes out of the findings that `vitbench analysis --json` prints.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jinja2
import yaml

import vitbench
from vitbench.analysis import figures, style
from vitbench.analysis.summary import FindingJson, SummaryJson
from vitbench.config import load_results_sweep

HERE = Path(__file__).resolve().parent
DATA = HERE.parent / "analysis" / "data"
README = HERE.parent / "README.md"
PICTURES = HERE / "images" / "findings"
NOT_TESTED = "not tested"
# What the README shows: claims of sweeps on MNIST, and the figure of the first of them.
SHOWN = {"mnist_data_size": "linear", "vit_and_cnn": "cnn", "mnist_lr": "unseen"}


@dataclass(frozen=True)
class Evidence:
    """Results that speak to a claim of the paper."""

    results: str  # folder in analysis/data
    claims: list[str] = field(default_factory=list)  # ids in its sweep file
    beside: list[str] = field(default_factory=list)  # ids that are quoted and decide nothing
    shown: list[str] = field(default_factory=list)  # kinds that are quoted beside the claims
    findings: list[str] = field(default_factory=list)  # kinds that are quoted in a fold
    figure: str = ""  # of the report, shown above the sentences


@dataclass(frozen=True)
class PaperClaim:
    """A claim of the paper."""

    id: str
    title: str
    says: str
    where: str
    evidence: list[Evidence]
    depends: str = ""
    untested: str = ""
    to_test: str = ""


def paper_claims() -> list[PaperClaim]:
    """What docs/findings/paper.yaml lists."""
    listed = yaml.safe_load((HERE / "findings" / "paper.yaml").read_text(encoding="utf-8"))
    return [
        PaperClaim(**{**claim, "evidence": [Evidence(**part) for part in claim["evidence"]]})
        for claim in listed
    ]


def verdict_of(verdicts: Iterable[str]) -> str:
    """One word for several verdicts, which says no more than they do together."""
    told = {verdict for verdict in verdicts if verdict != NOT_TESTED}
    if not told:
        return NOT_TESTED
    if "refuted" in told:
        return "mixed" if "supported" in told else "refuted"
    return "supported" if told == {"supported"} else "undecided"


class Shipped:
    """One results folder of analysis/data, and what it supports."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.folder = DATA / name
        self.results = vitbench.open(self.folder)
        self.json: SummaryJson = self.results._summary
        self.sweep = load_results_sweep(self.folder)
        self.environment = json.loads((self.folder / "environment.json").read_text())

    def verdicts(self, evidence: Evidence) -> list[str]:
        """Of the claims that are named."""
        by_id = {claim["id"]: claim for claim in self.json["claims"]}
        return [by_id[name]["verdict"] for name in evidence.claims]

    def of_kind(self, kind: str) -> list[FindingJson]:
        """Findings of one kind, in the order of the report."""
        return [finding for finding in self.json["findings"] if finding["kind"] == kind]

    def section(self, evidence: Evidence) -> dict[str, Any]:
        """What the page says of these results."""
        by_id = {claim["id"]: claim for claim in self.json["claims"]}
        return {
            "name": self.name,
            "heading": self.sweep.description,
            "picture": self.picture(evidence.figure) if evidence.figure else None,
            "scale": self.scale(),
            "claims": [by_id[n]["sentence"] for n in (*evidence.claims, *evidence.beside)],
            "shown": [f["text"] for kind in evidence.shown for f in self.of_kind(kind)],
            "findings": [f["text"] for kind in evidence.findings for f in self.of_kind(kind)],
            "command": " ".join(self.environment["command"]),
        }

    def picture(self, figure: str) -> tuple[str, Path]:
        """Text alternative and file of a figure of the report."""
        spec, data = figures.find(self.results._opened, figure)
        return spec.alt(data), PICTURES / f"{self.name}.png"

    def draw(self, figure: str) -> None:
        """Draw the figure for the page."""
        PICTURES.mkdir(exist_ok=True)
        style.save_picture(self.results.figure(figure), self.picture(figure)[1])

    def scale(self) -> str:
        """Images, model and length of training, in a line."""
        trials = self.results.trials
        sizes = self.sweep.search.space.get("batch_size", [self.sweep.train.batch_size])
        batch_size = ", ".join(map(str, sizes)) if isinstance(sizes, list) else sizes
        return (
            f"{self.environment['image_source']}; {self._images()}, {self._length()}, batch size "
            f"{batch_size}; {len(trials)} models of {self._parameters()} parameters, "
            f"{trials['seed'].nunique()} seeds."
        )

    def short_scale(self) -> str:
        """The same in a cell of a table."""
        known = {"mnist": "MNIST", "digits": "8x8 digits", "faces": "drawn faces"}
        name = known.get(self.json["dataset"], self.json["dataset"])
        return f"{name}, {self._images()}, {self._length()}, {self._parameters()} parameters"

    def _images(self) -> str:
        train, axis = self.sweep.train, self.sweep.search.space.get("train_images")
        if train.matched is not None:
            return f"{train.matched:,} images with and as many without each label"
        if isinstance(axis, list):
            counts = [int(str(count)) for count in axis]
            return f"{min(counts):,} to {max(counts):,} images"
        return f"{train.train_images:,} images" if train.train_images else "all images"

    def _length(self) -> str:
        train = self.sweep.train
        return f"{train.steps:,} updates" if train.steps else f"{train.epochs} epochs"

    def _parameters(self) -> str:
        counts = self.results.trials["parameters"].astype(int)
        low, high = counts.min(), counts.max()
        return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def page(shipped: dict[str, Shipped]) -> str:
    """docs/findings.md."""
    rows = []
    for claim in paper_claims():
        folders = [shipped[part.results] for part in claim.evidence]
        verdicts = [v for part in claim.evidence for v in shipped[part.results].verdicts(part)]
        rows.append(
            {
                **claim.__dict__,
                "verdict": verdict_of(verdicts),
                "run": dict.fromkeys(folder.short_scale() for folder in folders),
                "small": any(folder.json["scale"] != "paper" for folder in folders),
                "evidence": [shipped[part.results].section(part) for part in claim.evidence],
            }
        )
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE / "findings"),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    limits = {name: folder.json["limits"] for name, folder in shipped.items()}
    return environment.get_template("page.md.jinja").render(rows=rows, limits=limits)


def readme(shipped: dict[str, Shipped]) -> str:
    """The README with its findings as they are now."""
    claims = [
        claim["sentence"]
        for name, shown in SHOWN.items()
        for claim in shipped[name].json["claims"]
        if claim["id"] == shown
    ]
    first = next(iter(SHOWN))
    figure = next(
        part.figure for claim in paper_claims() for part in claim.evidence if part.results == first
    )
    alt, path = shipped[first].picture(figure)
    block = "\n".join(
        [
            "<!-- findings, written by `make findings` -->",
            "Each claim of the paper that it implements beside what was found is on "
            "[docs/findings.md](docs/findings.md).",
            "So far, on MNIST, with few images:",
            "",
            *(f"- {sentence}" for sentence in claims),
            "",
            f"![{alt}]({path.relative_to(README.parent)})",
            "<!-- end of findings -->",
        ]
    )
    marked = re.compile(r"<!-- findings, .*?<!-- end of findings -->", re.DOTALL)
    return marked.sub(lambda _: block, README.read_text(encoding="utf-8"))


def opened() -> dict[str, Shipped]:
    """The results that paper.yaml names."""
    named = dict.fromkeys(part.results for claim in paper_claims() for part in claim.evidence)
    return {name: Shipped(name) for name in named}


def files(shipped: dict[str, Shipped]) -> dict[Path, str]:
    """Path to content of everything that is written."""
    written = {
        folder.folder / "findings.json": json.dumps(folder.json, indent=1) + "\n"
        for folder in shipped.values()
    }
    return {HERE / "findings.md": page(shipped), README: readme(shipped), **written}


if __name__ == "__main__":
    every = opened()
    for path, text in files(every).items():
        path.write_text(text, encoding="utf-8")
        print(f"wrote {path.relative_to(HERE.parent)}")
    for claim in paper_claims():
        for part in claim.evidence:
            if part.figure:
                every[part.results].draw(part.figure)

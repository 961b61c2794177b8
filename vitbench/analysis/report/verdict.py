"""What leads a report: at most three short sentences, and the figure that stands beside them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from vitbench.analysis.figure_spec import Drawn
from vitbench.analysis.findings.claims import VERDICTS
from vitbench.analysis.findings.finding import Finding
from vitbench.analysis.findings.render import sentence, short
from vitbench.analysis.summary import Summary

MOST = 3
# A line each: of what is named in it the first that the results have. Kinds that come several
# times, one for each model or label, are no verdict.
_LINES = (
    ("no_trial_ended", "all_diverged", "size_curve", "label_order", "search_lowest",
     "lowest_setting", "only_setting"),
    ("size_needed", "label_measures_disagree", "lr_sensitivity", "lr_movement", "setting_matters",
     "settings_like_noise"),
    ("search_at_edge", "labels_not_learned", "settings_diverged", "spread_association"),
)  # fmt: skip
# Of these the one that counts: the measure that corrects most, the largest share, the last loss.
_WHICH = {"label_order": -1, "setting_matters": 0, "spread_association": -1}


def verdict(summary: Summary) -> list[str]:
    """The claims counted, then the findings that say most, in a sentence each."""
    lines = []
    if summary.claims:
        judged = Counter(verdict.verdict for verdict in summary.claims)
        counts = {verdict: judged[verdict] for verdict in VERDICTS if judged[verdict]}
        counted = Finding("claims_counted", n=len(summary.claims), facts={"of": counts})
        lines.append(sentence(counted))
    for kinds in _LINES:
        told = (_of_kind(summary.findings, kind) for kind in kinds)
        lines += [text for finding in told if finding and (text := short(finding))][:1]
    return lines[:MOST]


def _of_kind(findings: Sequence[Finding], kind: str) -> Finding | None:
    found = [finding for finding in findings if finding.kind == kind]
    if len(found) == 1:
        return found[0]
    return found[_WHICH[kind]] if found and kind in _WHICH else None


def main_figure(drawn: Sequence[Drawn]) -> Drawn | None:
    """The figure of what the sweep is about; None where nothing is drawn that could be."""
    ranked = [one for one in drawn if one.spec.rank]
    return max(ranked, key=lambda one: one.spec.rank, default=None)

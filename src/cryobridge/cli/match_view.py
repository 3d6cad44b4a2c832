"""What the closing table shows of a comparison of two particle files."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cryobridge.report import counted

if TYPE_CHECKING:
    from cryobridge.cli.run import Facts
    from cryobridge.jobs.identity.report import Matched


def compared(matched: Matched | None) -> Facts:
    """Return how particles were compared with another file's; nothing where they were not."""
    if matched is None:
        return []
    facts = [("compared by", f"{matched.by}: {counted(matched.rows, 'row is', 'rows are')} in {matched.other}")]
    places = matched.places
    if places is not None:
        text = f"{places.median_A:.3g} Å in the median, {places.largest_A:.3g} Å at most"
        facts.append(("distances", f"{text} ({places.within_A:.3g} Å allowed)"))
    facts.append(("left over", f"{matched.rows_left_over:,} here, {matched.other_rows_left_over:,} in {matched.other}"))
    return facts

"""The flags that the commands of several data sets share, and what their words mean."""

from __future__ import annotations

from typing import Annotated, Final

import typer

from radllm_backend.datasets.birads import LabelRule

BenignOption = Annotated[str, typer.Option(help="BI-RADS categories that count as benign, separated by commas.")]
MalignantOption = Annotated[str, typer.Option(help="BI-RADS categories that count as malignant.")]
FindingsOption = Annotated[str, typer.Option(help="Only these findings, separated by commas, or 'all'.")]
DescriptorsOption = Annotated[
    bool, typer.Option("--descriptors", help="With the radiologist's findings, as columns descriptor_...")
]
TablesOnlyOption = Annotated[
    bool, typer.Option("--tables-only", help="No images: a table of descriptors that train and evaluate read.")
]
AssessmentOption = Annotated[
    bool, typer.Option("--assessment", help="With the BI-RADS assessment among the descriptors: the reader's verdict.")
]
ALL: Final = "all"


def label_rule(benign: str, malignant: str) -> LabelRule:
    """The rule that two flags name; RadllmError where it is none."""
    return LabelRule(benign=words(benign), malignant=words(malignant))


def words(text: str) -> tuple[str, ...]:
    """The parts between commas; none for 'all'."""
    found = tuple(word.strip() for word in text.split(",") if word.strip())
    return () if found == (ALL,) else found

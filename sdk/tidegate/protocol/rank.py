"""How well texts fit together: documents ranked for a query, and scores of pairs.

Sources: the rerank API of Cohere and Jina, and vLLM's score API.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, StringConstraints, model_validator

from tidegate.protocol.token_usage import InputUsage
from tidegate.protocol.wire import Answer, ModelName, WireModel

MAX_DOCUMENTS = 1000
"""Of one rerank request, and pairs of one score request."""

Text = Annotated[str, StringConstraints(min_length=1)]


class DocumentText(WireModel):
    text: Text


class RerankRequest(WireModel):
    model: ModelName
    query: Text
    documents: list[Text | DocumentText] = Field(min_length=1, max_length=MAX_DOCUMENTS)
    top_n: int | None = Field(default=None, ge=1, description="the best N; all when absent")
    return_documents: bool | None = Field(default=None, description="false when absent")

    @property
    def texts(self) -> list[str]:
        """The documents as texts."""
        return [each if isinstance(each, str) else each.text for each in self.documents]


class ScoreRequest(WireModel):
    """One text with each of many, or two lists of equal length, pair by pair."""

    model: ModelName
    text_1: Text | Annotated[list[Text], Field(min_length=1, max_length=MAX_DOCUMENTS)]
    text_2: Text | Annotated[list[Text], Field(min_length=1, max_length=MAX_DOCUMENTS)]

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """Every pair, in order."""
        firsts, seconds = _listed(self.text_1), _listed(self.text_2)
        if len(firsts) == 1:
            firsts = firsts * len(seconds)
        return list(zip(firsts, seconds, strict=True))

    @model_validator(mode="after")
    def _lists_fit(self) -> ScoreRequest:
        first, second = len(_listed(self.text_1)), len(_listed(self.text_2))
        if first not in (1, second):
            raise ValueError(
                f"text_1: {first} texts cannot be paired with {second} of text_2; give one, or as "
                "many"
            )
        return self


class RankUsage(InputUsage):
    pass


class RankedDocument(Answer):
    text: str


class RankResult(Answer):
    index: int = Field(description="the document's place in the request")
    relevance_score: float = Field(description="larger is more relevant")
    document: RankedDocument | None = None


class RerankResponse(Answer):
    """`results` begin with the most relevant."""

    id: str
    model: str
    results: list[RankResult]
    usage: RankUsage


class Score(Answer):
    index: int
    object: Literal["score"] = "score"
    score: float


class ScoreResponse(Answer):
    id: str
    object: Literal["list"] = "list"
    created: int = Field(description="unix seconds")
    model: str
    data: list[Score]
    usage: RankUsage


def _listed(texts: str | list[str]) -> list[str]:
    return [texts] if isinstance(texts, str) else texts

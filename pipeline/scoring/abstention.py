"""Does a reply decline to answer? By versioned patterns, each with the name that an audit shows.

A reply abstains when every sentence of it is recognised and at least one of them declines; the others
may apologise, ask for more, or tell what the passage holds instead. Whatever is not recognised is
taken for an answer, so a hedge with an answer behind it ("Hard to say, possibly Oslo") is an answer.
Sentences are compared whole, never by substring: "Letter from an Unknown Woman" stays an answer.

Compared is a lightly cleaned sentence. Articles and apostrophes stay in it until contractions are
written out: a list matched after SQuAD's normalisation cannot find "I don't know".
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator

from pipeline.scoring.abstention_patterns import VERSIONS, Patterns

EMPTY = "empty"  # rule name: nothing but white space
LONGEST_SENTENCE = 400  # characters; a longer one tells something, and no pattern is tried on it
LONGEST_REPLY = 2_000  # characters; likewise, so that no text can make the detector slow


def rule(text: str, version: int) -> str | None:
    """The name of the rule by which *text* declines to answer, or None when it is an answer.

    *version* is a key of `abstention_patterns.VERSIONS`.
    """
    if not text or text.isspace():
        return EMPTY
    if len(text) > LONGEST_REPLY:
        return None
    patterns = VERSIONS[version]
    declined = None
    for sentence in _sentences(text):
        names = _recognised(sentence, patterns)
        if names is None:
            return None
        declined = declined or next(iter(names), None)
    return declined


def _sentences(text: str) -> Iterator[str]:
    """The sentences of *text*, cut only as far as they are asked for: the first one settles most long replies."""
    start = 0
    for end in _SENTENCE_END.finditer(text):
        yield text[start : end.start()]
        start = end.end()
    yield text[start:]


def _recognised(sentence: str, patterns: Patterns) -> list[str] | None:
    """Names of the rules that the sentence, or its parts, match; none for a filler. None if anything is left over."""
    if len(sentence) > LONGEST_SENTENCE:
        return None
    cleaned = _cleaned(sentence)
    opened = _opened(cleaned, patterns)
    padded = f" {opened}"
    if any(cue in padded for cue in patterns.cues):
        if name := _match(opened, patterns, _is_title(sentence)):
            return [name]
        parts = [_opened(part, patterns) for part in _JOINT.split(cleaned)]
        names = [_match(part, patterns, title=False) for part in parts] if len(parts) > 1 else []
        if names and all(name or _is_filler(part, patterns) for name, part in zip(names, parts, strict=True)):
            return [name for name in names if name]
    return [] if _is_filler(opened, patterns) else None


def _match(opened: str, patterns: Patterns, title: bool) -> str | None:
    """The name of the first rule that matches."""
    for name, pattern in patterns.rules:
        if match := pattern.fullmatch(opened):
            free = match.groupdict().get("free")
            if not free or not (title or patterns.guess.search(free)):
                return name
    return None


def _is_filler(opened: str, patterns: Patterns) -> bool:
    return not opened or bool(patterns.fillers.fullmatch(opened) and not patterns.guess.search(opened))


def _is_title(sentence: str) -> bool:
    """Whether the longer words are written With Capitals, as in the name of a work."""
    words = [word for word in sentence.split() if len(word) > 3]
    return all(word[0].isupper() for word in words) and not all(word.isupper() for word in words)


def _cleaned(sentence: str) -> str:
    """*sentence* in NFKC, lower case, with straight quotes, single spaces, full negations and without markdown."""
    text = unicodedata.normalize("NFKC", sentence)
    if not text.isascii():
        text = text.translate(_STRAIGHT)
    return _CONTRACTION.sub(_written_out, " ".join(_MARKDOWN.sub(" ", text.lower()).split()))


def _opened(part: str, patterns: Patterns) -> str:
    """*part* without outer punctuation and without openings such as "Answer:" or "Sorry,"."""
    part = _OUTER.sub("", part)
    while match := patterns.opening.match(part):
        part = _OUTER.sub("", part[match.end() :])
    return part


def _written_out(contraction: re.Match[str]) -> str:
    text = contraction[0]
    return _LONG_FORMS.get(text) or f"{text[:-3] if text.endswith(chr(39) + 't') else text[:-2]} not"


_STRAIGHT = str.maketrans({**dict.fromkeys("‘’‚´", "'"), **dict.fromkeys("“”„«»", '"')})
_MARKDOWN = re.compile(r"[*_`#~>|]+")
_OUTER = re.compile(r"\A\W+|(?<!\W)\W+\Z")

# A full stop after a single letter or a title ends no sentence ("J. Smith", "St. Louis").
_SENTENCE_END = re.compile(
    r"[\r\n.!?;](?:(?<=[\r\n])"
    r"|(?<![.!?;].)(?<!\b[A-Za-z].)(?<!\b[MDSJ]r.)(?<!\b[MS]t.)(?<!\bMrs.)(?<!\bvs.)(?<!\bNo.)"
    r"[.!?;]*[\"'”’)\]*_]*(?=\s|$))"
)
# Where a sentence that is not recognised as a whole is cut, so that each part can be tried.
_JOINT = re.compile(
    r"[,:;()\[\]]+(?:\s|$)|[()\[\]]|\s?[–—]\s?|\s-+\s|(?<=[.!?])\s"
    r"|,? (?=(?:but|however|so|therefore|thus|hence|because|since|although|though|and|as|nor) )"
)
_CONTRACTION = re.compile(
    r"\b(?:can't|cannot|cant|won't|(?:do|does|did|is|are|was|were|has|have|could|would|should)n'?t"
    r"|i'm|im|i've|i'd|i'll|it's|that's|there's)\b"
)
_LONG_FORMS = {
    "can't": "can not",
    "cant": "can not",
    "cannot": "can not",
    "won't": "will not",
    "i'm": "i am",
    "im": "i am",
    "i've": "i have",
    "i'd": "i would",
    "i'll": "i will",
    "it's": "it is",
    "that's": "that is",
    "there's": "there is",
}

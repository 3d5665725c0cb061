"""The abstention patterns by version. A released version is never edited: published numbers depend on it.

`abstention.py` matches them against whole cleaned sentences: lower case, straight quotes, full
negations ("can not", "does not", "it is"), no outer punctuation. The first rule that matches gives
its name. The group `free` holds words of any kind; the match does not count when these go on to
answer (*guess*), or when the sentence is written like a title.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple


class Rule(NamedTuple):
    """One way to decline to answer."""

    name: str
    pattern: re.Pattern[str]


class Patterns(NamedTuple):
    """One version of the list.

    *cues*: a sentence in which no word starts with one of them is not tried. *rules* decline. *fillers*
    neither decline nor answer: apologies, requests, what the passage holds instead. *opening* is taken
    off the front of a sentence. *guess* shows that an answer follows.
    """

    cues: tuple[str, ...]
    rules: tuple[Rule, ...]
    fillers: re.Pattern[str]
    opening: re.Pattern[str]
    guess: re.Pattern[str]


def _any(words: str) -> str:
    """A group of the alternatives in *words*, which are separated by white space; `_` stands for a space."""
    return f"(?:{'|'.join(words.split())})".replace("_", " ")


# --- phrases; those whose value begins with a space bring the space before them ------------------

_KIND = _any("provided given above supplied following available original current reference input official")
_NOUN = _any(
    """passage text context paragraph article document excerpt source material story information info content extract
    snippet section author prompt data detail"""
)
_AFTER = (
    rf"(?: (?:{_KIND}|itself|here|alone|that (?:was|is|were) {_KIND}"
    rf"|(?:that )?(?:you|i was)(?: have)? {_any('gave given provided shared')}))*"
)
_PASSAGE = rf"(?:(?:{_any('the this that these such your any our')} )?(?:{_KIND} )*{_NOUN}s?{_AFTER})"
_PREPOSITION = _any("in within from by on based_on based_only_on based_solely_on using with given according_to via")
_IN_PASSAGE = (
    rf"(?:,? (?:(?:{_any('any_?where explicitly directly solely only')} )?{_PREPOSITION} (?:{_PASSAGE}|this|it|here)"
    r"|here))*"
)
_ADVERB = _any(
    """explicitly specifically directly clearly actually really exactly ever even currently seem_to appear_to definitely
    definitively yet any_?where otherwise reliably accurately conclusively confidently precisely fully be"""
)
_ADVERBS = rf"(?: {_ADVERB})*"
_ASKED = _any("question query problem")
_WHICH = _any("above given following specific particular")
_QUESTION = rf"(?: {_any('this that the your it these')}(?: {_WHICH})?(?: {_ASKED}s?)?)"
_SURE = _any("exact correct specific right definite definitive clear concrete known")
_ANSWER = rf"(?:(?:{_any('the a an any')} )?(?:{_SURE} )?(?:answer|response)s?)"
_IT = (
    rf"(?:it|this|that|(?:{_any('the this that your')} )?(?:{_any('above given following')} )?{_ASKED}"
    rf"|{_ANSWER}(?: to{_QUESTION})?)"
)
_OF_WHAT = rf"{_any('the his her its their this that')} .{{1,80}}"  # "the year of the treaty"
_WH = _any("who whom whose what when where which why how if whether that")
_BE = _any("is are was were has_been have_been remains")
_TOLD = _any(
    """stated mentioned provided given specified indicated included contained available present found disclosed named
    discussed addressed described covered explained identified listed clear known answered supplied shown reported
    referenced noted revealed recorded detailed inferable answerable determinable"""
)
_TELL = _any(
    """say state mention provide specify contain give include indicate tell discuss address answer explain describe
    identify name list clarify reveal refer offer disclose report note detail elaborate define make have cover talk
    show"""
)
_TELLS = _any(
    """says states mentions provides specifies contains gives includes offers has makes lists reveals tells indicates
    answers"""
)
_LEARN = _any(
    """answer determine say tell find know identify provide give infer confirm conclude establish deduce locate extract
    ascertain see be_sure be_certain help assist verify respond comment speculate guess"""
)
_LEARNT = _any(
    """answered determined found inferred known ascertained established identified deduced said told located concluded
    provided confirmed given verified derived extracted stated"""
)
_FACT = _any("answer information info mention detail data reference indication context explanation record knowledge")
_FACTS = f"{_FACT}s?"
_SURELY = rf"(?: {_any('for_sure for_certain with_certainty exactly')})?"
_SUCH = (
    rf"(?: {_any('specific explicit direct clear relevant such further other any the that this enough sufficient')})*"
)
_TOO_LITTLE = _any("not_enough not_sufficient not_adequate insufficient inadequate")
_CAN_NOT = _any("can_not could_not not_able_to unable_to not_in_a_position_to")
_NOT_SURE = rf"(?:not (?:\w+ly |quite |so )?{_any('sure certain aware')}|unsure|uncertain|unaware)"
_NOT = _any("not never")
_ABOUT = _any("about of on regarding concerning")
_FALSE = _any("false incorrect wrong flawed mistaken invalid faulty inaccurate untrue nonsensical")
_PREMISE = _any("premise assumption presupposition")


def _rule(name: str, *pattern: str) -> Rule:
    return Rule(name, re.compile("".join(pattern)))


_RULES_1 = (
    _rule(
        "unknown",
        rf"(?:(?:{_IT}(?: {_BE})?|remains) )?(?:currently |still )?(?:not applicable|n ?[/.] ?a",
        rf"|{_any('unknown not_known unanswerable not_answerable unspecified undisclosed undetermined')})",
        _IN_PASSAGE,
    ),
    _rule("unknown", rf"(?P<free>{_OF_WHAT}) {_BE} (?:currently |still |simply )?(?:unknown|not known){_IN_PASSAGE}"),
    _rule(
        "no_answer",  # "none" alone may be a number
        rf"(?!none$)(?:(?:there (?:is|was)|i have|i can find|i found|{_PASSAGE} {_TELLS}) )?",
        rf"(?:no(?: {_SURE})? ?answer|none)(?: to{_QUESTION})?",
        rf"(?: (?:(?:is|was|can be) )?(?:{_TOLD}|possible|exists?))?{_IN_PASSAGE}",
    ),
    _rule(
        "dont_know",
        rf"(?:(?:i|we) )?(?:{_any('really honestly simply just truly')} )?(?:do|did|would) not{_ADVERBS} ",
        rf"(?:know|remember|recall|have {_ANSWER})(?: (?:{_ANSWER}|it|this|that|about (?:this|that|it)))?",
        rf"(?: {_any('to for of')}{_QUESTION})?(?: either)?{_SURELY}{_IN_PASSAGE}|idk|(?:i )?dunno",
    ),
    _rule(
        "dont_know",  # "I don't know when it was signed"; but "I Don't Know Why I Love You" is a song
        rf"(?:i|we) (?:(?:really|honestly) )?(?:do not know|(?:am|are) {_NOT_SURE}|have no idea)(?: of| about)?",
        rf"(?P<free> (?:{_any('who whom whose what when where which if whether any the')}",
        rf"|how {_any('many much long old far often tall big')}) (?!(?:to|you|i|we)\b).+)",
    ),
    _rule(
        "dont_know",
        r"(?:i|we) (?:(?:am|are) not familiar with|have (?:not|never) heard of|have no way (?:of knowing|to know))",
        r"(?P<free> .+)?",
    ),
    _rule(
        "not_sure",
        rf"(?:(?:i|we) (?:am|are) )?(?:{_any('really honestly quite')} )?{_NOT_SURE}",
        rf"(?: (?:{_ABOUT}|how to answer)?{_QUESTION})?(?: (?:of|about) {_ANSWER})?{_IN_PASSAGE}",
    ),
    _rule(
        "no_idea",
        r"(?:(?:i|we) (?:really |honestly )?have )?(?:no|not (?:a|the slightest|the faintest)) (?:idea|clue)",
        r"(?: at all)?|beats me",
    ),
    _rule(
        "hard_to_say",
        rf"(?:{_IT} is )?(?:very |too )?{_any('hard difficult impossible not_possible not_easy')} (?:for me )?to",
        rf"{_ADVERBS} {_LEARN}(?: {_ANSWER})?(?:(?: to)?{_QUESTION})?{_SURELY}{_IN_PASSAGE}",
        rf"(?P<free> (?:{_WH}|the|this) .+)?",
    ),
    _rule(
        "cannot_answer",
        rf"(?:{_any('i we one you')} )?(?:{_any('am are was')} )?{_CAN_NOT}{_ADVERBS} {_LEARN}(?: you)?",
        rf"(?: (?:{_ANSWER}|any {_FACTS}))?(?: {_any('to for with on about')})?(?:{_QUESTION})?{_SURELY}{_IN_PASSAGE}",
    ),
    _rule(
        "cannot_answer",
        rf"(?:i|we) (?:{_any('am are was')} )?{_CAN_NOT}{_ADVERBS} {_LEARN}",
        rf"(?P<free> (?:{_WH}|{_any('the this that any an? from based with without you about to on')}) .+)",
    ),
    _rule(
        "cannot_answer",
        rf"{_CAN_NOT}{_ADVERBS} {_any('answer determine tell infer identify')}",
        rf"(?P<free> (?:{_WH}|{_any('the_question the_answer from_the based with_the without')}) .+)",
    ),
    _rule("cannot_answer", r"(?:i|we) (?:would (?:rather|prefer)|prefer)(?: to)? not(?: to)? (?:guess|speculate|say)"),
    _rule(
        "cannot_be_answered",
        rf"(?:{_IT} )?(?:can not|could not){_ADVERBS} {_LEARNT}{_ADVERBS}{_SURELY}{_IN_PASSAGE}",
        rf"(?P<free> {_any('without because as since with')} .+)?",
    ),
    _rule(
        "cannot_be_answered", rf"(?P<free>.+) (?:can not|could not) be{_ADVERBS} {_LEARNT} {_PREPOSITION} {_PASSAGE}"
    ),
    _rule(
        "not_enough_information",
        rf"(?:(?:there (?:is|are)|i have|due to|it is|{_PASSAGE} (?:is|{_TELLS})) )?{_TOO_LITTLE}(?: \w+)? ",
        rf"(?:{_FACTS}|evidence)(?: (?:{_BE} )?{_TOLD})?{_IN_PASSAGE}(?P<free> (?:to|for|{_ABOUT}) .+)?",
    ),
    _rule("not_enough_information", rf"{_PASSAGE} (?:is|are) {_TOO_LITTLE}(?P<free> (?:to|for) .+)?"),
    _rule(
        "not_enough_information",
        rf"(?:i|we|it|{_PASSAGE}) (?:lacks?|(?:do|does|did) not",
        rf"{_ADVERBS} {_any('have provide contain give include offer see find')})",
        rf"(?: access to)?{_SUCH}(?: [\w-]+)? (?:{_FACTS}|evidence)(?P<free> .+)?",
    ),
    _rule("not_enough_information", r"(?:i|we) (?:am|are|was|were) not (?:given|provided|told)(?P<free> .+)?"),
    _rule(
        "passage_silent",
        rf"(?:{_PASSAGE}|the question) (?:(?:do|does|did) not|fails? to){_ADVERBS} {_TELL}(?P<free> .+)?",
    ),
    _rule(
        # Without its noun only in the present tense: "it did not mention slavery" may be about a law.
        "passage_silent",
        rf"(?:(?:it|this) )?does not{_ADVERBS} {_any('say state mention specify indicate')}(?P<free> .+)?",
    ),
    _rule(
        "passage_silent",
        rf"(?:{_PASSAGE}|it) (?:never{_ADVERBS} {_TELLS}|{_TELLS} (?:no|nothing)\b)(?P<free> .+)?",
    ),
    _rule(
        "passage_silent",
        rf"(?:nothing in|none of|nowhere in|neither) (?:.+ in )?{_PASSAGE} (?P<free>.*(?:{_TELL}|{_TELLS})\b.*)",
    ),
    _rule(
        "passage_silent",
        rf"{_PASSAGE} (?:is|are) {_any('silent unclear not_clear vague ambiguous not_specific not_explicit')}",
        rf"(?P<free> (?:{_ABOUT}|as to) .+)?",
    ),
    _rule("passage_silent", rf"(?:{_PASSAGE}|it) leaves .{{1,60}} {_any('unanswered unspecified unclear open')}"),
    _rule(
        "no_information",
        rf"(?:there {_BE}|i {_any('have see find found can_find')}|{_PASSAGE} (?:has|have)) (?:no|not any)",
        rf"{_SUCH}(?: \w+)? {_FACTS}(?: {_TOLD})?{_IN_PASSAGE}",
        rf"(?P<free> (?:{_ABOUT}|{_any('to that as_to for in which')}) .+)?",
    ),
    _rule(
        "no_information",
        rf"(?:there {_BE} )?nothing (?:(?P<free>.+) )?(?:in|within|from) {_PASSAGE}(?: {_ABOUT} .+)?",
    ),
    _rule(
        "no_information",
        rf"no{_SUCH} {_any('information info mention detail data context reference')}s?(?: is made)?",
        rf"(?P<free> (?:{_ABOUT}|to) .+?)?(?: (?:{_BE}|can be))?(?: {_TOLD})?{_IN_PASSAGE}",
    ),
    _rule("not_stated", rf"(?:(?:(?:{_IT}|{_PASSAGE}) )?(?:{_BE} )?)?not{_ADVERBS} {_TOLD}{_ADVERBS}{_IN_PASSAGE}"),
    _rule("not_stated", rf"(?:{_IT} (?:is|was) )?not (?:in|within|part of) {_PASSAGE}"),
    _rule(
        "not_stated",
        rf"(?P<free>.+) (?:{_BE} {_NOT}|(?:has|have) {_NOT} been){_ADVERBS} {_TOLD}{_ADVERBS}",
        rf" {_PREPOSITION} {_PASSAGE}",
    ),
    _rule("not_stated", rf"(?P<free>{_OF_WHAT}) {_BE} {_NOT}{_ADVERBS} {_any('stated mentioned specified')}"),
    _rule("not_stated", rf"no (?P<free>.+) {_BE}{_ADVERBS} {_TOLD} {_PREPOSITION} {_PASSAGE}"),
    _rule(
        "unclear",
        rf"(?:{_IT} is )?(?:unclear|not (?:entirely )?clear|uncertain|unknown",
        rf"|not {_any('known specified stated mentioned indicated')}){_IN_PASSAGE}(?P<free> {_WH} .+)?",
    ),
    _rule(
        "false_premise",
        rf"{_any('the this that your')} {_any('question premise query')}(?: of {_any('the this your')} question)?",
        rf"(?: itself)? {_any('is contains? has assumes makes seems appears')}",
        rf"(?: based on| to be| to contain| to have)?(?: an?| the)?(?: \w+)? ?{_FALSE}(?: (?:{_PREMISE}|information))?",
    ),
    _rule(
        "false_premise", rf"(?:(?:it|this|that) {_any('is has contains')} )?(?:an? )?{_FALSE} {_PREMISE}(?: question)?"
    ),
    _rule("false_premise", r"no such .{1,40} (?:exists|existed|ever existed|is mentioned|is known)"),
    _rule("false_premise", r"there (?:is|was|are|were) no such(?! thing as)(?P<free> .+)"),
)

_HOLDS = _any(
    "discusses describes talks covers refers notes focuses explains addresses deals compares concerns is_about"
)
_FILLERS_1 = "|".join(
    (
        r"(?:(?:my )?apologies|(?:i am )?(?:very |so )?sorry|i apologi[sz]e|unfortunately|i am afraid)"
        r"(?: (?:for|about) .+)?",
        rf"(?:{_PASSAGE}|it|this|they)(?: \w+ly)? {_any('only just merely simply instead rather mainly primarily')} "
        rf"(?:{_TELLS}|{_HOLDS}|is)(?: .+)?",
        rf"(?:{_PASSAGE}|it)(?: \w+ly)? (?:{_HOLDS}|mentions|does {_any('mention discuss describe cover')})(?: .+)?",
        rf"the question {_any('asks is_asking is_about refers mentions')} .+",
        rf"(?:{_any('please can_you could_you would_you kindly if_you let_me_know you_may i_recommend i_suggest')}"
        r"|i (?:would )?(?:need|require)"
        rf"|{_any('more additional further')} {_any('information context details research')})(?: .+)?",
    )
)

_OPENING_1 = "|".join(
    (
        r"(?:(?:the|my|final|short|correct) )*answer(?: is)? ?(?:[:=]| - )|(?:response|output|a):",
        rf"(?:the )?answer is(?= {_any('unknown unanswerable that not no i unclear')}\b)",
        r"as (?:an? (?:ai|artificial intelligence|large|language)|of my (?:knowledge|last|training))\b[^,]{0,60},",
        rf"(?:(?:i am |so |very )*sorry|{_any('apologies i_apologi[sz]e i_am_afraid unfortunately regrettably')})"
        r"(?:,| that| but|:)*(?= )",
        rf"{_any('well hm+ oh actually honestly frankly to_be_honest as_such as_a_result in_short overall')}[,:]*(?= )",
        rf"{_any('so therefore thus hence however and but because since although though nor also as')}"
        r"(?:,| that|:)*(?= )",
        rf"{_any('based_(?:up)?on based_(?:only|solely)_on according_to from given in within using after_reading')}"
        rf" {_PASSAGE},? (?=\w)",
        rf"i {_any('think believe would_say must_say must_admit have_to_say conclude')}(?: that)?"
        r" (?=(?:i|the answer|it|this|there) )",
        r"it (?:seems|appears)(?: that)? (?=(?:i|the|there|no) )",
        r"[-+*\d.]+ (?=[a-z])",
    )
)

_GUESS_1 = "|".join(
    (
        rf"\b{_any('but however although though probably possibly perhaps maybe presumably likely')}\b",
        rf"\bi (?:would )?{_any('think believe guess assume suspect say')}\b|\b(?:my|best) guess\b|\bif i had to\b",
        r"\bit (?:could|might|may|must) be\b|\banswer:|\s[-–—=]+\s",
        rf"[,:–—]\s?(?:so |and |yet )?{_any('it he she they this that i we there')} "
        rf"{_any('is was were are had has became took began died')}\b(?! not| no )",
    )
)

_CUES_1 = """
    no never neither un idk dunno n/ n. insufficient inadequate lack hard difficult impossible fail silent
    vague ambiguous leaves beats false incorrect wrong flawed mistaken invalid faulty inaccurate
"""

VERSIONS: Mapping[int, Patterns] = {
    1: Patterns(
        cues=tuple(f" {cue}" for cue in _CUES_1.split()),
        rules=_RULES_1,
        fillers=re.compile(_FILLERS_1),
        opening=re.compile(_OPENING_1),
        guess=re.compile(_GUESS_1),
    )
}

"""Completion of doit's words in bash and zsh: commands, phases, `phase:trial`, and the values of `name=value`.

The script is made once and asks nothing of Python at each TAB: runs and trials are the names of folders.
"""

from __future__ import annotations

from pipeline import graph, request
from pipeline.command_line import COMMANDS
from pipeline.paths import RunPaths

# What a variable takes: words, or one of the lists that the shells make themselves.
RUNS, TRIALS, FILES, NOTHING = "runs", "trials", "files", ""
_PHASES = " ".join(graph.NAMES)
_FLAG = "1 0"
VALUES = {
    "rid": RUNS,
    "config": FILES,
    "force": " ".join([*(name for name in graph.NAMES if name != "submit"), "all"]),
    "trial": TRIALS,
    "from": _PHASES,
    "to": _PHASES,
    "only": _PHASES,
    "wait": _FLAG,
    "verify": "deep",
    "yes": _FLAG,
    "limit": NOTHING,
    "requeue": "auto ask never",
    "json": _FLAG,
    "poll": NOTHING,
}
_INSTALL = """\
# Completion of doit for Trialmake. To install, write this to a file and load that when a shell starts:
#   python -m pipeline completion {shell} > ~/.trialmake-completion
#   echo 'source ~/.trialmake-completion' >> ~/.{shell}rc
"""

_BASH = r"""
_trialmake_runs() {
    local folder
    for folder in @RUNS@/; do
        [[ -d $folder ]] && folder=${folder#@PREFIX@} && printf '%s\n' "${folder%/}"
    done
}

_trialmake_trials() { # of the run that the line names, else of all
    local folder rid='*'
    [[ $1 =~ [[:space:]]rid=([^[:space:]]+)[[:space:]] ]] && rid=${BASH_REMATCH[1]}
    for folder in @PREFIX@$rid/@INPUTS@/; do
        [[ -d $folder ]] && folder=${folder%/*/} && printf '%s\n' "${folder##*/}"
    done
}

_trialmake_doit() {
    local line=${COMP_LINE:0:COMP_POINT} word name value words before='' found
    word=${line##*[[:space:]]}
    COMPREPLY=()
    if [[ $word == *=* ]]; then
        name=${word%%=*} value=${word#*=}
        case $name in
@CASES@
            *) return ;;
        esac
        [[ $value == *,* ]] && before=${value%,*}, value=${value##*,}
        [[ $COMP_WORDBREAKS == *=* ]] || before=$name=$before
    elif [[ $word == *:* ]]; then
        words=$(_trialmake_trials "$line") before=${word%%:*}: value=${word#*:}
        [[ $COMP_WORDBREAKS == *:* ]] && before=''
    else
        words='@WORDS@' value=$word
    fi
    while IFS= read -r found; do
        COMPREPLY+=("$before$found")
    done < <(if [[ $words == '<files>' ]]; then compgen -f -- "$value"; else compgen -W "$words" -- "$value"; fi)
    if [[ $words == '<files>' ]]; then
        compopt -o filenames 2> /dev/null
    elif [[ ${#COMPREPLY[@]} == 1 && ${COMPREPLY[0]} == *= ]]; then
        compopt -o nospace 2> /dev/null
    fi
}

complete -o default -F _trialmake_doit doit
"""

_ZSH = r"""
_trialmake_doit() {
    local word rid='*'
    local -a runs trials
    for word in ${words[2,CURRENT-1]}; do
        [[ $word == rid=?* ]] && rid=${word#rid=}
    done
    runs=(@RUNS@(N/))
    runs=(${runs#@PREFIX@})
    trials=(@PREFIX@${~rid}/@INPUTS@(N/:h:t))
    if [[ $PREFIX == *=* ]]; then
        word=${PREFIX%%=*}
        compset -P '*='
        compset -P '*,'
        case $word in
@CASES@
        esac
    elif compset -P '*:'; then
        compadd -a trials
    else
        compadd -- @NAMES@
        compadd -S '' -- @VARIABLES@
    fi
}

compdef _trialmake_doit doit
"""

_IN_BASH = {
    RUNS: "words=$(_trialmake_runs)",
    TRIALS: """words=$(_trialmake_trials "$line")""",
    FILES: "words='<files>'",
}
_IN_ZSH = {RUNS: "compadd -a runs", TRIALS: "compadd -a trials", FILES: "_files", NOTHING: ":"}


def script(shell: str) -> str:
    """The script for *shell*, bash or zsh."""
    text, how, otherwise = (_BASH, _IN_BASH, "words='{}'") if shell == "bash" else (_ZSH, _IN_ZSH, "compadd -- {}")
    cases = [f"            {name}) {how.get(value, otherwise.format(value))} ;;" for name, value in VALUES.items()]
    variables = [f"{name}=" for name in request.NAMES]
    filled = {
        "@RUNS@": RunPaths.of("*").root.as_posix(),
        "@PREFIX@": RunPaths.of("").root.as_posix(),
        "@INPUTS@": f"*/{RunPaths.of('').trial('').inputs.name}",
        "@CASES@": "\n".join(cases),
        "@NAMES@": " ".join([*COMMANDS, *graph.NAMES]),
        "@VARIABLES@": " ".join(variables),
        "@WORDS@": " ".join([*COMMANDS, *graph.NAMES, *variables]),
    }
    for mark, value in filled.items():
        text = text.replace(mark, value)
    return _INSTALL.format(shell=shell) + text

"""``nasdsl completion``: the script with which a shell completes commands, options and values."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

import click

from nasdsl.cli.errors import fail

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

SHELLS: Final = ("bash", "zsh", "fish")


@click.command()
@click.argument("shell", type=click.Choice(SHELLS), required=False)
def completion(shell: str | None) -> None:
    """Print the script with which a shell completes commands, options and values.

    SHELL is bash (4.4 or newer), zsh or fish; without it, the one that $SHELL names.

    \b
    nasdsl completion bash > ~/.nasdsl-complete.bash && echo '. ~/.nasdsl-complete.bash' >> ~/.bashrc
    nasdsl completion zsh > ~/.nasdsl-complete.zsh && echo '. ~/.nasdsl-complete.zsh' >> ~/.zshrc
    mkdir -p ~/.config/fish/completions && nasdsl completion fish > ~/.config/fish/completions/nasdsl.fish
    """
    from click.shell_completion import get_completion_class

    name = shell or os.path.basename(os.environ.get("SHELL", ""))
    known = get_completion_class(name) if name in SHELLS else None
    if known is None:
        fail(f"$SHELL is {os.environ.get('SHELL', '')!r}; expected the name of a shell: {', '.join(SHELLS)}")
    root = click.get_current_context().find_root().command
    script = _BASH if name == "bash" else known(root, {}, "nasdsl", "_NASDSL_COMPLETE").source()
    if name == "zsh":
        script = f"{_ZSH_FIRST}\n{script}"
    elif name == "fish":  # a value may have commas: `resnet50,mobilenet_v2`
        script = script.replace('string split ","', 'string split --max 1 ","')
    click.echo(script)


_ZSH_FIRST: Final = """#compdef nasdsl
# In a zsh without a configuration of its own, nothing is completed until this is called.
(( $+functions[compdef] )) || { autoload -Uz compinit && compinit; }
"""

_BASH: Final = r"""# Completion of nasdsl for bash 4.4 or newer. Bash takes `zoo:fcos` for three words; here it is one.
_nasdsl_completion() {
    local line="${COMP_LINE:0:COMP_POINT}" response type value words typed prefix
    typed="${line##*[[:space:]]}"
    prefix="${typed%"${typed##*:}"}"
    [[ $COMP_WORDBREAKS == *:* ]] || prefix=""
    read -ra words <<< "$line"
    [[ -n $typed ]] || words+=("")
    response=$(env COMP_WORDS="$line" COMP_CWORD=$((${#words[@]} - 1)) _NASDSL_COMPLETE=bash_complete "$1")
    while IFS=, read -r type value; do
        case $type in
            dir) compopt -o dirnames ;;
            file) compopt -o default ;;
            plain) COMPREPLY+=("${value#"$prefix"}") ;;
        esac
    done <<< "$response"
}
complete -o nosort -F _nasdsl_completion nasdsl"""


class Completer:
    """Completes a value, or the last one of several with commas between them.

    Args:
        values: gives the possible values; called when a shell asks.
        files: whether the value may be a file too.
    """

    def __init__(self, values: Callable[[], Sequence[str]], *, files: bool = False) -> None:
        self.values, self.files = values, files

    def __call__(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        from click.shell_completion import CompletionItem

        before, comma, typed = incomplete.rpartition(",")
        found = [CompletionItem(before + comma + value) for value in self.values() if value.startswith(typed)]
        if self.files and not typed.startswith("zoo:"):
            found.append(CompletionItem(incomplete, type="file"))
        return found


def _zoo(*, spaces: bool | None = None) -> list[str]:
    """Names of the zoo: of spaces, of decoders, or of both."""
    from nasdsl import resources

    return [f"zoo:{name}" for name, path in resources.zoo().items() if spaces in (None, resources.is_space(path))]


def _backbones() -> Sequence[str]:
    from nasdsl.backbones import BACKBONES

    return list(BACKBONES)


def _codes() -> Sequence[str]:
    from nasdsl.diagnostics.catalogue import CODES

    return list(CODES)


FILES: Final = Completer(lambda: (), files=True)
DECODERS: Final = Completer(lambda: _zoo(spaces=False), files=True)
SPACES: Final = Completer(lambda: _zoo(spaces=True), files=True)
DECODERS_AND_SPACES: Final = Completer(_zoo, files=True)
ZOO_NAMES: Final = Completer(lambda: [name.removeprefix("zoo:") for name in _zoo()])
BACKBONES: Final = Completer(_backbones)
RECIPES: Final = Completer(lambda: ("small", "published", "quick"))  # `nasdsl.training` would import torch
DATA: Final = Completer(lambda: ("shapes",), files=True)
DEVICES: Final = Completer(lambda: ("cpu", "cuda", "mps"))
STRATEGIES: Final = Completer(lambda: ("bayes", "ppo", "evolution", "nsga2", "llm", "random"))
CODES: Final = Completer(_codes)

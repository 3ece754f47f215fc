"""The pages of the commands, made of click's commands: what ``--help`` says, its examples, its options in their groups."""

from __future__ import annotations

import html
import inspect
import re
from collections.abc import Iterator, Sequence

import click

from nasdsl.cli import COMMANDS, cli
from nasdsl.cli.help import GroupedCommand


def pages() -> dict[str, str]:
    """Markdown by place: the list of the commands, and a page for each."""
    context = click.Context(cli, info_name="nasdsl")
    rows = [f"| [`nasdsl {c.name}`]({c.name}.md) | {_text(c.get_short_help_str(200))} |" for c in COMMANDS]
    index = [
        "# Commands",
        *_paragraphs(cli.help or ""),
        "\n".join(["| command | what it does |", "|---|---|", *rows]),
        "`nasdsl --version` prints the version. `nasdsl COMMAND --help` prints what its page says.",
    ]
    found = {"commands/index.md": "\n\n".join(index) + "\n"}
    for command in COMMANDS:
        found[f"commands/{command.name}.md"] = _page(command, context)
    return found


def _page(command: click.Command, parent: click.Context) -> str:
    context = click.Context(command, info_name=command.name, parent=parent)
    usage = " ".join([context.command_path, *command.collect_usage_pieces(context)])
    first, *others = _paragraphs(command.help or "")
    parts = [f"# nasdsl {command.name}", first, f"```text\n{usage}\n```", *others]
    if isinstance(command, click.Group):
        for child in command.commands.values():
            child_context = click.Context(child, info_name=child.name, parent=context)
            child_usage = " ".join([child_context.command_path, *child.collect_usage_pieces(child_context)])
            about, *rest = _paragraphs(child.help or "")
            parts += [f"## {context.command_path} {child.name}", about, f"```text\n{child_usage}\n```", *rest]
            parts += _options(child, child_context, 3)
    else:
        parts += _options(command, context, 2)
    return "\n\n".join(parts) + "\n"


def _paragraphs(text: str) -> Iterator[str]:
    r"""The paragraphs of a help text; those after click's ``\b`` are examples, and a block of code."""
    for paragraph in inspect.cleandoc(text).split("\n\n"):
        if paragraph.startswith("\b"):
            yield "```sh\n" + paragraph.removeprefix("\b").strip("\n") + "\n```"
        else:
            yield _text(" ".join(paragraph.split()))


def _options(command: click.Command, context: click.Context, level: int) -> Iterator[str]:
    options = {p.name or "": p for p in command.get_params(context) if isinstance(p, click.Option) and not p.hidden}
    groups: list[tuple[str, Sequence[click.Option]]] = []
    if isinstance(command, GroupedCommand):
        groups = [(heading, [options.pop(name) for name in names]) for heading, names in command.option_groups.items()]
        groups.append(("Other options", list(options.values())))
    else:
        groups.append(("Options", list(options.values())))
    for heading, members in groups:
        rows = [_row(option, context) for option in members]
        yield f"{'#' * level} {heading}\n\n" + "\n".join(["| option | meaning |", "|---|---|", *rows])


def _row(option: click.Option, context: click.Context) -> str:
    record = option.get_help_record(context)
    assert record is not None, option.name
    extra = option.get_help_extra(context)
    about, _, default = " ".join((option.help or "").split()).partition("[default: ")
    notes = []
    if default or "default" in extra:
        notes.append(f"default: {_text(default.rstrip(']') or extra['default'])}")
    if "range" in extra:
        notes.append(f"`{extra['range']}`")
    if "required" in extra:
        notes.append("required")
    names = "<br>".join(f"<code>{_breakable(name.strip())}</code>" for name in record[0].split(" / "))
    anchor = f'<a id="{option.opts[-1]}"></a>'
    return (
        f"| {anchor}{names} | {_text(about.strip())}"
        + (f' <span class="option-notes">{"; ".join(notes)}</span>' * bool(notes))
        + " |"
    )


def _breakable(code: str) -> str:
    """Code as HTML that narrow screens may break behind a stroke."""
    marked = re.sub(r"[\[\]|*_]", lambda found: f"&#{ord(found[0])};", html.escape(code))
    return marked.replace("&#124;", "&#124;<wbr>")


def _text(text: str) -> str:
    """Plain text as Markdown, in which only single backquotes mean something; names of options become code."""
    parts = re.split(r"(`[^`]*`)", re.sub(r"(?<![\w`-])--[a-z][\w-]*(?!\w*`)", r"`\g<0>`", text))
    parts[::2] = [re.sub(r"([*_\[\]\\|])", r"\\\1", html.escape(part, quote=False)) for part in parts[::2]]
    return re.sub(r"\bdocs/([\w-]+\.md)\b", r"[docs/\1](../\1)", "".join(parts))

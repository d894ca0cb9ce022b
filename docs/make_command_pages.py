"""Write docs/commands/*.md, one page per command group, from what --help prints.

python docs/make_command_pages.py            write the pages
python docs/make_command_pages.py --check    exit with 1 where a page is stale
"""

import sys
from pathlib import Path

import click

from simulation.cli import cli

FOLDER = Path(__file__).parent / "commands"
WIDTH = 80


def pages() -> dict[str, str]:
    """Every page's file name and text."""
    root = _context(cli, "fedqana", None)
    groups = [(n, c) for n in cli.list_commands(root) if (c := cli.get_command(root, n))]
    texts = {f"{name}.md": _page(_context(group, name, root)) for name, group in groups}
    links = "\n".join(f"- [`fedqana {name}`]({name}.md)" for name, _ in groups)
    texts["index.md"] = f"# Commands\n\n{_block(root)}\n\n{links}\n"
    return texts


def stale(texts: dict[str, str]) -> list[str]:
    """Names of the pages that are absent, differ, or have no command any more."""
    found = {path.name: path.read_text() for path in FOLDER.glob("*.md")}
    return sorted(n for n in {*texts, *found} if texts.get(n) != found.get(n))


def _page(context: click.Context) -> str:
    parts = [f"# {context.command_path}", _block(context), *_members(context)]
    return "\n\n".join(parts) + "\n"


def _members(context: click.Context) -> list[str]:
    """Headings and texts of a group's commands, and of the groups within it."""
    command, parts = context.command, []
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            member = command.get_command(context, name)
            assert member is not None
            below = _context(member, name, context)
            parts += [f"## {below.command_path}", _block(below), *_members(below)]
    return parts


def _block(context: click.Context) -> str:
    return f"```\n{context.get_help()}\n```"


def _context(command: click.Command, name: str, parent: click.Context | None) -> click.Context:
    # The width is fixed: pages must not depend on the terminal in which they are made.
    settings = {**command.context_settings, "terminal_width": WIDTH, "max_content_width": WIDTH}
    return click.Context(command, info_name=name, parent=parent, **settings)


def main() -> None:
    """Write the pages, or with --check compare them."""
    texts = pages()
    outdated = stale(texts)
    if sys.argv[1:] == ["--check"]:
        if outdated:
            sys.exit(f"stale: {', '.join(outdated)}; run make docs")
        return
    FOLDER.mkdir(exist_ok=True)
    for name in outdated:
        if name in texts:
            (FOLDER / name).write_text(texts[name])
        else:
            (FOLDER / name).unlink()


if __name__ == "__main__":
    main()

"Make README.md from index.ipynb; with `--check` change nothing, show a diff and exit 1 when they differ."
import argparse
import difflib
import posixpath
import re
import sys
from pathlib import Path

import nbformat
from nbconvert import MarkdownExporter

NBS = Path(__file__).resolve().parent
ROOT = NBS.parent
LINK = re.compile(r'(!?)\[([^\]]*)\]\((?!\w+:|#)([^)\s]+)\)')


def from_root(match):
    "A link seen from `nbs/` as seen from the root; of a picture that is not there yet, its caption."
    bang, text, target = match.groups()
    if bang and not (NBS/target).exists():
        print(f'nbs/{target} is not there yet: README shows its caption instead.', file=sys.stderr)
        return f'*{text}*'
    return f"{bang}[{text}]({posixpath.normpath('nbs/' + target)})"


def is_picture(output): return 'image/png' in output.get('data', {})


def fenced(cell):
    "The text outputs of a code cell as one fenced block, so that no Markdown in them comes alive."
    texts = [o.get('text') or o.get('data', {}).get('text/plain', '') for o in cell.outputs if not is_picture(o)]
    text = ''.join(o for o in texts if not o.startswith('<IPython.')).strip('\n')  # a progress bar has no text
    return [nbformat.v4.new_markdown_cell(f'```text\n{text}\n```')] if text else []


def make_readme():
    "README's text, and its pictures as {path below the root: bytes}."
    nb = nbformat.read(NBS/'index.ipynb', as_version=4)
    cells = []
    for cell in nb.cells:
        if cell.cell_type == 'markdown': cell.source = LINK.sub(from_root, cell.source)
        if re.search(r'^#\|\s*hide\b', cell.source, re.M): continue
        if re.search(r'^#\|\s*output:\s*false', cell.source, re.M): cell.outputs = []
        shown = not re.search(r'^#\|\s*echo:\s*false', cell.source, re.M)  # else its output alone
        cell.source = re.sub(r'^#\|.*\n', '', cell.source, flags=re.M)
        cells += [cell]*shown
        if cell.cell_type == 'code':
            cells += fenced(cell)
            cell.outputs = [o for o in cell.outputs if is_picture(o)]
    nb.cells = cells
    nb.metadata['language_info'] = {'name': 'python'}
    body, found = MarkdownExporter().from_notebook_node(nb, {'output_files_dir': 'nbs/images', 'unique_key': 'index'})
    return re.sub(r'\n{3,}', '\n\n', body).strip() + '\n', found.get('outputs', {})


def main():
    "Write README.md and its pictures, or check them."
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--check', action='store_true', help='change nothing; exit 1 when README.md differs')
    check = parser.parse_args().check
    body, pictures = make_readme()
    readme = ROOT/'README.md'
    if not check:
        (NBS/'images').mkdir(exist_ok=True)
        readme.write_text(body, encoding='utf-8', newline='\n')
        for name, content in pictures.items(): (ROOT/name).write_bytes(content)
        return
    old = readme.read_text(encoding='utf-8') if readme.exists() else ''
    lines = list(difflib.unified_diff(old.splitlines(), body.splitlines(), 'README.md', 'nbs/index.ipynb', lineterm=''))
    lines += [f'{name} differs from the picture in nbs/index.ipynb' for name, content in pictures.items()
              if not (ROOT/name).exists() or (ROOT/name).read_bytes() != content]
    if lines: sys.exit('\n'.join([*lines, 'Run `python nbs/make_readme.py`.']))


if __name__ == '__main__': main()

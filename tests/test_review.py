"""The review widget in JupyterLab in a headless browser, on a drawn folder with planted suspects.

With `DIGITS_SCREENSHOTS=FOLDER` the tests also leave pictures of what they saw there."""
import shutil
import subprocess
import time
from contextlib import contextmanager
from pathlib import Path

import pandas as pd
import psutil
import pytest
from lab import IDLE, KERNEL, Shown, open_page, run_browser, run_lab
from playwright.sync_api import sync_playwright

from digits_kit.files import file_sha256
from digits_kit.folder import read_rows
from digits_kit.hands import draw_hand
from digits_kit.landing import add_photo
from digits_kit.photos import as_jpeg
from digits_kit.reviews import add_review, read_reviews

NODE = shutil.which('node')
SHOW = "import pandas as pd\nfrom digits_kit.review import Review\n" \
       "w = Review(pd.read_csv('{0}.csv', keep_default_na=False), '{0}')\n" \
       "w._asked = []\nw.observe(lambda o: o.new and w._asked.append(f\"{{o.new['do']}}{{o.new.get('i', '')}}\"), 'ask')\nw"


@pytest.fixture(scope='module')
def lab(tmp_path_factory):
    with run_lab(tmp_path_factory.mktemp('lab')) as lab: yield lab


@pytest.fixture(scope='module')
def browser():
    with sync_playwright() as playwright, run_browser(playwright, '') as browser: yield browser


@pytest.fixture(scope='module')
def hands(): return [as_jpeg(draw_hand(n, seed=n, size=(240, 320)).img) for n in (1, 2, 3, 4, 5)]


def plant(root, hands):
    "Eight photos of anna; five suspects of four kinds, the third of them a pair."
    photos = [('one', 0), ('two', 1), ('two', 2), ('four', 3), ('five', 4), ('five', 3), ('one', 1), ('three', 0)]
    paths = [add_photo(root, hands[i], 'train', label, person='anna').relative_to(root).as_posix() for label, i in photos]
    why = 'A network that never saw it takes it for another label.'
    rows = [(paths[2], 'wrong label?', why, ''), (paths[1], 'dark', 'Its mean grey level is 30 of 255.', ''),
            (paths[5], 'contradiction', 'The same picture has another label.', paths[3]),
            (paths[4], 'dark', 'Its mean grey level is 31 of 255.', ''), (paths[0], 'blank', 'It shows nothing.', '')]
    table = pd.DataFrame(rows, columns=['path', 'kind', 'why', 'other'])
    table['sha256'] = [file_sha256(root/path) for path in table.path]
    return table.assign(prob_two=[.05, .8, .1, .1, .2], prob_three=[.93, .1, .1, .1, .2])


class Widget(Shown):
    "A page with a notebook that shows the review of a planted folder; `root` is that folder."
    css = 'digits-review'

    def __init__(self, page, lab, name, hands):
        super().__init__(page)
        self.root = lab.folder/name
        self.table = plant(self.root, hands)
        self.table.to_csv(lab.folder/f'{name}.csv', index=False)
        lab.write(f'{name}.ipynb', SHOW.format(name), '1 + 1')
        self.open(lab.page(name))
        self.do('notebook:run-cell')
        self.see('1 of 5')

    def restart(self):
        "A new kernel, and the cell with the widget once more."
        self.page.evaluate(f'async () => {{ await {KERNEL}.restart(); }}')
        self.do('notebook:clear-cell-output')
        self.page.wait_for_selector('.digits-review', state='detached')
        self.page.wait_for_function(IDLE)
        self.do('notebook:run-cell')

    def see(self, place):
        "Wait for a suspect and its picture, or for the words at the end; no key does anything before."
        self.wait_text('.rv-why b >> nth=0', place)
        if place[0].isdigit(): self.find('.rv-photo >> nth=0').locator('b').filter(has_not_text='…').wait_for()

    def step(self, key, status, place):
        "Press a key; wait for what the widget says of it, and for what follows."
        self.press(key)
        self.wait_text('.dc-status', status)
        self.see(place)

    @property
    def files(self):
        "Fingerprint of every photo by its path."
        photos = [path for folder in self.root.glob('[!.]*') for path in folder.rglob('[0-9]*.jpg')]
        return {path.relative_to(self.root).as_posix(): file_sha256(path) for path in photos}

    @property
    def choices(self): return [(row['kind'], row['choice'], row['label']) for row in read_reviews(self.root)]


def wait_for(path):
    "What stands in a file that somebody is about to write."
    for _ in range(200):
        if path.exists() and path.read_text(): return path.read_text()
        time.sleep(.05)
    raise AssertionError(f'{path} did not come')


@contextmanager
def open_widget(browser, lab, name, hands):
    page = open_page(browser, 20000)
    problems = []
    page.on('pageerror', lambda error: problems.append(error.message))
    try: yield Widget(page, lab, name, hands)
    finally: page.close()
    assert problems == []


@pytest.mark.skipif(NODE is None, reason='node, which runs the tests of the JavaScript, is not installed')
def test_javascript():
    done = subprocess.run([NODE, '--test', '--test-reporter=tap', Path(__file__).with_name('review.test.mjs')],
                          capture_output=True, text=True)
    assert done.returncode == 0 and '# pass 3' in done.stdout, done.stdout


def test_keys_and_restart(browser, lab, hands):
    "Every key does on disk what it says and nothing to the notebook; after a restart only the rest is asked."
    with open_widget(browser, lab, 'keys', hands) as w:
        before, cells = w.files, w.cells()
        w.wait_text('.rv-why', 'The network says three 93%, two 5%.')
        w.find('.rv-stage').click()
        w.step('3', 'is train/three/00000001.jpg now', '2 of 5: dark')
        assert w.files['train/three/00000001.jpg'] == w.table.sha256[0]
        w.step('k', 'Kept: train/two/00000000.jpg', '3 of 5: contradiction')
        assert w.find('.rv-photo:visible').count() == 2
        w.press('s')
        w.find('.rv-photo >> nth=1').and_(w.page.locator('[aria-pressed=true]')).wait_for()
        w.look('review-pair', w.find('.dc-frame'))
        w.step('q', 'In quarantine: train/four/00000000.jpg', '4 of 5: dark')
        assert w.files['quarantine/train/four/00000000.jpg'] == w.files['train/five/00000001.jpg']
        w.step('z', 'Taken back: train/four/00000000.jpg', '3 of 5: contradiction')
        assert 'train/four/00000000.jpg' in w.files and read_rows(w.root/'quarantine') == []
        w.step('Delete', 'In quarantine: train/five/00000001.jpg', '4 of 5: dark')
        w.press('ArrowRight')
        w.wait_text('.rv-why b', '5 of 5: blank')
        w.press('ArrowLeft', 'ArrowLeft')
        w.wait_text('.rv-why', '3 of 5: contradiction.')
        w.wait_text('.rv-why', 'In quarantine.')
        assert w.find('button:has-text("Keep")').is_disabled()
        w.press('k', 'q', '9', 'x', 'd', 'd', 'a', 'm', 'Enter')  # nothing here, and nothing to the cells either
        w.wait_text('.dc-row >> nth=0', '3 of 5 done')
        assert w.cells() == cells
        assert w.choices == [('wrong label?', 'relabel', 'three'), ('dark', 'keep', ''), ('contradiction', 'quarantine', '')]
        assert sorted(w.files.values()) == sorted(before.values())
        assert sorted(row['path'] for row in read_rows(w.root)) == [o for o in sorted(w.files) if o[0] != 'q']
        assert {row['person'] for row in [*read_rows(w.root), *read_rows(w.root/'quarantine')]} == {'anna'}
        assert read_rows(w.root/'quarantine')[0]['reason'].startswith('contradiction: The same picture')

        w.restart()
        w.see('4 of 5: dark')
        w.find('.rv-stage').click()
        w.step('q', 'In quarantine: train/five/00000000.jpg', '5 of 5: blank')
        w.step('1', 'Kept: train/one/00000000.jpg', 'All is looked through: 2 kept, 1 with another label, 2 in quarantine.')
        w.look('review-end', w.find('.dc-frame'))
        assert w.cells() == cells and len(w.choices) == 5


def test_others_at_work(browser, lab, hands):
    "A photo that is gone, one that was changed, and one that another notebook has kept: said, skipped, nothing lost."
    with open_widget(browser, lab, 'others', hands) as w:
        w.find('.rv-stage').click()
        (w.root/w.table.path[0]).rename(w.root/'elsewhere.jpg')
        w.step('q', 'is not among the photos any more', '2 of 5: dark')
        (w.root/w.table.path[1]).write_bytes(hands[4])
        w.step('k', 'is not the file that the audit saw', '3 of 5: contradiction')
        add_review(w.root, w.table.sha256[4], 'blank', 'keep')
        w.find('select').select_option('dark')
        w.see('4 of 5: dark')
        w.step('5', 'Kept: train/five/00000000.jpg', 'Nothing is left of this kind; 1 of others.')
        assert w.find('select option').all_inner_texts() == ['all: 1 left', 'wrong label?: 0 left', 'dark: 0 left',
                                                            'contradiction: 1 left', 'blank: 0 left']
        w.find('select').select_option('')
        w.see('3 of 5: contradiction')
        w.step('4', 'is train/four/00000001.jpg now', 'All is looked through: 2 kept, 1 with another label, 2 skipped.')
        assert w.choices == [('blank', 'keep', ''), ('dark', 'keep', ''), ('contradiction', 'relabel', 'four')]
        assert (w.root/'elsewhere.jpg').read_bytes() == hands[2] and len(w.files) == 7 and not (w.root/'quarantine').exists()


def test_few_pictures_looks_and_a_killed_kernel(browser, lab, hands):
    "Only what is shown and the next one travel; light, dark and narrow nothing sticks out; a silent kernel is said."
    with open_widget(browser, lab, 'looks', hands) as w:
        w.find('.rv-stage').click()
        w.step('k', 'Kept', '2 of 5: dark')
        w.look('review-one', w.find('.dc-frame'))
        w.step('k', 'Kept', '3 of 5: contradiction')
        w.page.wait_for_timeout(300)
        w.run("import os\nopen('asked.txt', 'w').write(' '.join([*w._asked, str(os.getpid())]))")
        asked = wait_for(lab.folder/'asked.txt').split()
        assert asked[:-1] == ['look0', 'look1', 'keep0', 'look2', 'keep1', 'look3']
        w.do('application:toggle-left-area')
        for theme, width in [('Light', 1280), ('Dark', 1280), ('Light', 400)]:
            w.set_look(theme, width, 1100)
            w.look(f'review-{theme.lower()}-{width}', w.find('.dc-frame'))
            assert w.find_wide() == []
        psutil.Process(int(asked[-1])).kill()
        w.find('.rv-stage').click()
        w.press('q')
        w.find('.dc-status').filter(has_text="The notebook's kernel does not answer").wait_for(timeout=20000)
        assert len(w.choices) == 2 and not (w.root/'quarantine').exists()

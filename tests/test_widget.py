"""The real widget in JupyterLab in a headless browser, with a drawn hand before a fake camera.

With `DIGITS_SCREENSHOTS=FOLDER` the tests also leave pictures of what they saw there."""
import re
import time
from contextlib import contextmanager
from datetime import datetime, timedelta

import cv2
import numpy as np
import psutil
import pytest
from lab import ELSEWHERE, FPS, IDLE, KERNEL, Shown, hand_frames, open_page, run_browser, run_lab, write_y4m
from PIL import Image
from playwright.sync_api import sync_playwright

from digits_kit.folder import read_rows
from digits_kit.sessions import Session

# keeps every stream that the page was given, so that a test can ask later whether it was stopped
WATCH = """window.tracks = [];
if (navigator.mediaDevices) {
  const real = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices);
  navigator.mediaDevices.getUserMedia = async what => {
    const stream = await real(what);
    window.tracks.push(...stream.getTracks());
    return stream;
  };
}"""


@pytest.fixture(scope='module')
def lab(tmp_path_factory):
    with run_lab(tmp_path_factory.mktemp('lab')) as lab: yield lab


@pytest.fixture(scope='module')
def frames(): return hand_frames()


@pytest.fixture(scope='module')
def playwright():
    with sync_playwright() as playwright: yield playwright


@pytest.fixture(scope='module')
def browser(playwright, tmp_path_factory, frames):
    video = write_y4m(tmp_path_factory.mktemp('video')/'hand.y4m', frames)
    with run_browser(playwright, video) as browser: yield browser


class Widget(Shown):
    "A page with a notebook that shows the widget; `root` is where its photos go."
    css = 'digits-capture'

    def __init__(self, page, lab, name, setup='', host='localhost', subshells=True):
        super().__init__(page)
        self.root = lab.folder/name
        lab.write(f'{name}.ipynb', f"{setup}from digits_kit.capture import Capture\nw = Capture('{name}')\nw", '1 + 1')
        self.open(lab.page(name, host))
        if not subshells:  # as in VS Code, Colab and older Jupyters
            page.evaluate("kernel => { kernel.commsOverSubshells = 'disabled'; }", page.evaluate_handle(KERNEL))
        self.do('notebook:run-cell')
        page.wait_for_selector('.digits-capture')

    def result(self, start):
        "Pictures kept and frames skipped, when what began with `start` in the status line is over."
        self.wait_text('.dc-status', re.compile(f'^{start}: .* skipped'))
        return [int(o) for o in re.findall(r'\d+', self.text('.dc-status'))]

    def set(self, **traits):
        "Set traits of the widget in the browser, as a click on its fields would."
        for name, value in traits.items():
            field = self.find(f'.dc-shutter input >> nth={["burst_n", "every"].index(name)}')
            field.fill(str(value))
            field.press('Enter')

    def start(self, person='Anna'):
        if person:
            self.find('form input').fill(person)
            self.press('Enter')
        self.click('Start camera')
        self.find('.dc-shutter button:enabled >> nth=0').wait_for()

    @property
    def files(self): return sorted(o.relative_to(self.root).as_posix() for o in self.root.glob('[!.]*/*/[0-9]*.jpg'))

    @property
    def rows(self): return read_rows(self.root)

    def wait_files(self, n, timeout=10):
        end = time.monotonic() + timeout
        while len(self.files) < n and time.monotonic() < end: time.sleep(.05)
        assert len(self.files) == n, self.files

    def tracks(self): return self.page.evaluate('window.tracks.map(o => o.readyState)')


@contextmanager
def open_widget(browser, lab, name, camera=True, **kwargs):
    page = open_page(browser)
    page.context.clear_permissions()  # whatever is not granted is refused
    if camera: page.context.grant_permissions(['camera'])
    page.add_init_script(WATCH)
    try: yield Widget(page, lab, name, **kwargs)
    finally: page.close()


def test_capture(browser, lab, frames):
    "The whole way: refused, allowed, person, keys, single shot, burst, hold, undo, another split."
    with open_widget(browser, lab, 'anna', camera=False) as w:
        w.look('empty')
        cells = w.cells()
        assert w.tracks() == []  # the camera never starts by itself
        w.click('Start camera')
        w.wait_text('.dc-card p', 'This page may not use the camera')
        assert 'Allow' in w.text('.dc-card p') and 'VS Code' in w.text('.dc-card p')
        w.look('refused')
        w.page.context.grant_permissions(['camera'])
        w.click('Try again')
        w.find('.dc-card').wait_for(state='hidden')
        assert w.find('.dc-shutter button >> nth=0').is_disabled()  # nobody knows yet whose hand it is
        w.find('form input').fill('Ann a1b2u')  # keys do nothing while one types
        w.press('Enter')
        w.wait_text('.dc-person b', 'ann-a1b2u')
        assert w.page.evaluate("document.activeElement.className") == 'dc-stage'
        assert w.files == []

        w.click('change')
        w.find('form input').fill('Anna')
        w.press('Enter')
        w.wait_text('.dc-person b', 'anna')
        for key, label in zip('54321', ['five', 'four', 'three', 'two', 'one']):
            w.press(key)
            w.wait_text('.dc-labels [aria-pressed=true]', label)
        w.press('2', ' ')
        w.wait_files(1)
        w.wait_text('.dc-status', 'Saved')
        w.set(burst_n=10, every=.3)
        w.press('3', 'b')
        kept, skipped = w.result('Burst')
        assert kept + skipped == 10 and kept >= 8  # a busy machine may show the same frame twice
        w.wait_files(1 + kept)
        w.look('burst')
        assert w.files == [f'train/three/{i:08}.jpg' for i in range(kept)] + ['train/two/00000000.jpg']
        w.wait_text('.dc-labels [aria-pressed=true]', f'{kept}/40')

        w.press('4')
        w.page.keyboard.down(' ')
        w.page.wait_for_timeout(1600)
        w.page.keyboard.up(' ')
        n_held, _ = w.result('Recorded')
        n = 1 + kept + n_held
        w.wait_files(n)
        held = [o for o in w.rows if o['label'] == 'four']
        assert len(held) == n_held >= 4 and len({o['burst'] for o in held}) == 1
        w.page.wait_for_timeout(400)
        assert len(w.files) == n  # it ended when the key came up

        w.press('u')
        w.wait_text('.dc-status', 'quarantine')
        gone = held[-1]['path']
        assert gone not in w.files and (w.root/'quarantine'/gone).is_file()
        assert len(w.rows) == n - 1

        w.click('valid')
        w.wait_text('.dc-card p', 'Photos for valid need a session of their own')
        w.look('notice')
        w.press(' ', 'b')
        w.page.wait_for_timeout(300)
        assert len(w.files) == n - 1
        w.find('.dc-card button').focus()
        w.press('Enter')
        w.find('.dc-card').wait_for(state='hidden')
        w.press('d', 'd', '5', ' ')  # the button that had the focus is gone; the keys are still ours
        w.wait_files(n)
        assert w.cells() == cells  # 1 to 5, b, u and space did nothing to the notebook

        check_rows(w)
        assert [o['path'] for o in w.rows if o['split'] == 'valid'] == ['valid/five/00000000.jpg']
        check_frames(w, frames)
        assert w.tracks() == ['live']
        w.page.evaluate("window.dispatchEvent(new PageTransitionEvent('pagehide'))")  # the page is left
        assert w.tracks() == ['ended']


def check_rows(w):
    "Rows and files are the same, ids are as they should be."
    rows = w.rows
    assert sorted(o['path'] for o in rows) == w.files
    sessions = {o['session']: o['split'] for o in rows}
    for o in rows:
        assert o['person'] == 'anna' and o['session'].startswith('anna-20')
        assert o['burst'].startswith(f"{o['session']}-b") and sessions[o['session']] == o['split']
        assert o['path'].split('/')[:2] == [o['split'], o['label']]
        assert o['mirrored'] == 'False' and o['camera'] and o['sha256'] and o['phash'] and len(o['taken_at']) == 19
    bursts = [{o['label'] for o in rows if o['burst'] == burst} for burst in {o['burst'] for o in rows}]
    assert len(bursts) == 4 and all(len(o) == 1 for o in bursts)  # single, burst, hold, and the one in valid


def distance(path, frames):
    "Mean difference of the photo to the frame that is most like it, in grey levels."
    img = np.asarray(Image.open(path)).astype(int)
    assert img.shape == (480, 640, 3)
    return min(np.abs(img - o).mean() for o in frames)


def check_frames(w, frames):
    "Every photo is a frame of the video, whole and not mirrored."
    for file in w.files[::4]:
        assert distance(w.root/file, frames) < 3 < 6 < distance(w.root/file, [o[:, ::-1] for o in frames])


def test_mirror_and_countdown(browser, lab, frames):
    with open_widget(browser, lab, 'mirror') as w:
        w.start()
        w.click('Mirror off')
        w.click('3 s')
        w.press('1', ' ')
        for number in '321': w.wait_text('.dc-count', number)
        assert w.files == []
        w.wait_files(1)
        assert distance(w.root/w.files[0], [o[:, ::-1] for o in frames]) < 3 < 6 < distance(w.root/w.files[0], frames)
        assert w.rows[0]['mirrored'] == 'True'
        w.wait_text('.dc-more', 'The photos so far are mirrored, and all others must be like them')
        assert w.find('[role=switch]').is_disabled() and w.find('[role=switch]').get_attribute('aria-checked') == 'true'
        w.click('5 s')
        w.press('b')
        w.wait_text('.dc-count', '4')
        w.look('countdown')
        w.press('Escape')
        w.page.wait_for_timeout(500)
        assert w.text('.dc-count') == '' and len(w.files) == 1


def test_conditions_and_keys(browser, lab):
    "Conditions reach the manifest; Space presses a button that has the focus; Ctrl+S still saves the notebook."
    with open_widget(browser, lab, 'keys') as w:
        w.start()
        cells = w.cells()
        w.click('dim')
        w.click('left')
        w.press(' ')
        w.wait_files(1)
        w.wait_text('.dc-advice', 'Still missing in train: daylight, plain background, right hand')
        w.click('dim')  # taken back
        w.find('button:has-text("tilted")').focus()
        w.press(' ')
        w.wait_text('.dc-now [aria-pressed=true]', 'tilted')
        assert len(w.files) == 1
        w.find('.dc-stage').focus()
        w.press(' ')
        w.wait_files(2)
        kept = [{k: o.get(k, '') for k in ('light', 'background', 'hand', 'angle')} for o in w.rows]
        assert [list(o.values()) for o in kept] == [['dim', '', 'left', ''], ['', '', 'left', 'tilted']]

        w.press('a', 'x', 'd', 'd', 'm', 'Enter')  # add, cut, delete, markdown, edit: not while we have the focus
        w.find('button:has-text("Undo")').focus()
        w.press('Enter', 'u')  # the second finds nothing; the button that had the focus is gone grey
        w.page.wait_for_function("document.querySelector('.dc-tray button').disabled")
        w.press('d', 'd', '2')
        assert w.cells() == cells and w.files == []
        w.press('Control+s')
        w.page.wait_for_function('!window.jupyterapp.shell.currentWidget.context.model.dirty')


def test_still_hand(playwright, lab, frames, tmp_path):
    "What is nearly the same as the picture before is skipped and counted; after an undo the comparison starts anew."
    still = write_y4m(tmp_path/'still.y4m', frames[:1])
    with run_browser(playwright, still) as browser, open_widget(browser, lab, 'still') as w:
        w.start()
        w.press(' ')
        w.wait_files(1)
        w.press(' ')
        w.wait_text('.dc-tray', '1 skipped: nearly the same as the one before')
        w.set(burst_n=4, every=.2)
        w.press('b')
        assert w.result('Burst') == [0, 4]
        assert len(w.files) == 1
        w.press('u')
        w.wait_text('.dc-status', 'quarantine')
        w.press(' ')
        w.wait_files(1)
        assert len(list((w.root/'quarantine').glob('*/*/*.jpg'))) == 1
        w.wait_text('.dc-tray', '5 skipped')


def test_no_camera(playwright, lab):
    with run_browser(playwright, '', '--use-fake-device-for-media-stream=device-count=0') as browser, \
            open_widget(browser, lab, 'none') as w:
        w.click('Start camera')
        w.wait_text('.dc-card p', 'No camera was found. Plug one in')
        assert w.find('.dc-card button').inner_text() == 'Try again'


def test_insecure_origin(browser, lab):
    with open_widget(browser, lab, 'insecure', host=ELSEWHERE) as w:
        w.click('Start camera')
        w.wait_text('.dc-card p', f'This page comes from {ELSEWHERE}:{lab.port} without encryption')
        assert 'http://localhost' in w.text('.dc-card p')


def test_trouble_with_the_camera(browser, lab):
    "In use by another program, then unplugged while running."
    with open_widget(browser, lab, 'trouble') as w:
        w.page.evaluate("""() => {
            const media = navigator.mediaDevices, real = media.getUserMedia;
            media.getUserMedia = async () => {
                media.getUserMedia = real;
                throw new DOMException('Could not start video source', 'NotReadableError');
            };
        }""")
        w.click('Start camera')
        w.wait_text('.dc-card p', 'another program uses it')
        w.click('Try again')
        w.find('.dc-card').wait_for(state='hidden')
        w.page.evaluate("window.tracks[0].dispatchEvent(new Event('ended'))")
        w.wait_text('.dc-card p', 'The camera has stopped: it was unplugged')
        assert w.tracks() == ['ended']
        w.click('Try again')
        w.find('.dc-card').wait_for(state='hidden')
        assert w.tracks() == ['ended', 'live']


def test_leaving_stops_the_camera(browser, lab):
    with open_widget(browser, lab, 'leave') as w:
        w.start()
        w.do('notebook:run-cell')
        w.page.wait_for_function("window.tracks.map(o => o.readyState).join() === 'ended'")
        w.start(person='Anna')
        w.do('notebook:clear-cell-output')
        w.page.wait_for_function("window.tracks.map(o => o.readyState).join() === 'ended,ended'")
        w.do('notebook:run-cell')
        w.find('.dc-stage').wait_for()
        w.page.evaluate("""() => {
            const media = navigator.mediaDevices, real = media.getUserMedia;
            media.getUserMedia = async what => {
                await new Promise(resolve => setTimeout(resolve, 1000));
                return real(what);
            };
        }""")
        w.click('Start camera')
        w.do('notebook:clear-cell-output')  # the camera comes when the widget has gone
        w.page.wait_for_function("window.tracks.map(o => o.readyState).join() === 'ended,ended,ended'")


def test_other_occasion(browser, lab):
    "A folder such as `production_office` is offered beside the three splits."
    (lab.folder/'other'/'production_office').mkdir(parents=True)
    with open_widget(browser, lab, 'other') as w:
        w.start()
        assert w.find('.dc-top .dc-group button').all_inner_texts() == ['train', 'valid', 'production', 'production_office']
        w.click('production_office')
        w.press(' ')
        w.wait_files(1)
        assert w.files == ['production_office/one/00000000.jpg']
        w.wait_text('.dc-labels [aria-pressed=true]', '1')


@pytest.mark.parametrize('subshells', [True, False])
def test_busy_kernel(browser, lab, subshells):
    "Pictures land while a cell runs if the kernel has subshells, else they wait, and land in their order."
    name = f'busy-{subshells}'
    with open_widget(browser, lab, name, subshells=subshells) as w:
        w.start()
        w.set(burst_n=6.2, every=.05)  # what cannot be is corrected
        assert [w.find(f'.dc-shutter input >> nth={i}').input_value() for i in (0, 1)] == ['6', '0.2']
        w.run(f"import os, time\nwhile not os.path.exists('{name}.go'): time.sleep(.1)")
        w.press('b')
        n, _ = w.result('Burst')
        assert n >= 4
        if subshells: w.wait_files(n)
        else: assert w.files == []
        (lab.folder/f'{name}.go').touch()
        w.wait_files(n)
        assert [o['path'] for o in w.rows] == [f'train/one/{i:08}.jpg' for i in range(n)]
        assert len({o['sha256'] for o in w.rows}) == n


KNOWN = "import os\nopen('killed.pid', 'w').write(str(os.getpid()))\n"


def test_killed_kernel(browser, lab):
    "Nothing is missing that was reported saved; the widget says what waits; the next start goes on."
    with open_widget(browser, lab, 'killed', setup=KNOWN) as w:
        w.start()
        w.set(burst_n=50, every=.2)
        w.press('b')
        w.wait_text('.dc-labels [aria-pressed=true]', re.compile('[4-9]/40'))
        psutil.Process(int((lab.folder/'killed.pid').read_text())).kill()
        w.wait_text('.dc-alarm', "The notebook's kernel does not answer", timeout=20000)
        w.wait_text('.dc-status', '30 pictures wait to be saved: no more until then')
        w.wait_text('.dc-alarm', '30 pictures wait here')
        w.look('killed')
        reported = int(w.find('.dc-labels .dc-n >> nth=0').inner_text().split('/')[0])
        assert 4 <= reported <= len(w.files) <= reported + 2
        for o in w.files: Image.open(w.root/o).load()

        n = len(w.files)
        w.page.get_by_role('button', name='Ok', exact=True).click()  # JupyterLab has started the kernel again
        w.page.wait_for_function(IDLE)
        w.do('notebook:run-cell')
        w.wait_text('.dc-person b', 'anna')
        w.find('.dc-alarm').wait_for(state='hidden')
        w.start(person='')
        w.press(' ')
        w.wait_files(n + 1)
        assert sorted(o['path'] for o in w.rows) == w.files


def test_camera_through_python(browser, lab, frames):
    "The kernel's camera, here a video file, instead of the browser's."
    setup = "import cv2\nreal = cv2.VideoCapture\ncv2.VideoCapture = lambda name: real('python.avi')\n"
    writer = cv2.VideoWriter(str(lab.folder/'python.avi'), cv2.VideoWriter_fourcc(*'MJPG'), FPS, (640, 480))
    for frame in frames*9: writer.write(cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))
    writer.release()
    with open_widget(browser, lab, 'python', camera=False, setup=setup) as w:
        w.click('Start camera')
        w.wait_text('.dc-card p', 'through Python')
        w.find('form input').fill('Anna')
        w.press('Enter')
        w.find('select').select_option(label="this computer's camera, through Python")
        w.find('.dc-card').wait_for(state='hidden')
        w.set(burst_n=3, every=.5)
        w.press('b')
        n, _ = w.result('Burst')
        assert n >= 2
        w.wait_files(n)
        assert distance(w.root/w.files[-1], frames) < 5
        assert w.rows[0]['camera'] == "this computer's camera, through Python"
        w.wait_text('.dc-card p', 'The camera that Python reads has stopped', timeout=30000)
        assert w.tracks() == []


def test_looks(browser, lab, frames):
    "In the middle of the work, light, dark and narrow: nothing sticks out."
    session = Session(lab.folder/'looks', 'Anna', 'train', datetime.now() - timedelta(hours=2))
    jpeg = cv2.imencode('.jpg', frames[0][::8, ::8])[1].tobytes()
    for label, n, known in [('one', 40, dict(light='daylight', background='room')), ('two', 24, dict(hand='left')),
                            ('three', 8, dict(angle='palm', light='dim'))]:
        for _ in range(n): session.add(jpeg, label, session.new_burst(), **known)
    with open_widget(browser, lab, 'looks') as w:
        w.start(person='')
        w.click('lamp')
        w.click('right')
        w.press('1')
        w.wait_text('.dc-labels [aria-pressed=true]', '40/40')
        w.press('3', ' ')
        w.wait_text('.dc-labels [aria-pressed=true]', '9/40')
        w.page.wait_for_timeout(500)
        w.do('application:toggle-left-area')
        for theme, width in [('Light', 1280), ('Dark', 1280), ('Light', 520)]:
            w.set_look(theme, width, 900 if width > 600 else 1500)
            w.look(f'{theme.lower()}-{width}', w.page.locator('.digits-capture'))
            assert w.find_wide() == []

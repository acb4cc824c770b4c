"JupyterLab with a fake camera in a headless browser, for the tests of the widgets."
import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import contextmanager
from pathlib import Path

import cv2
import nbformat
import numpy as np
import pytest
from nbformat.v4 import new_code_cell, new_notebook
from playwright.sync_api import TimeoutError

from digits_kit.hands import draw_hand

KERNEL = 'window.jupyterapp?.shell.currentWidget?.sessionContext?.session?.kernel'
IDLE = f"{KERNEL}?.status === 'idle'"
SIZE = (480, 640)
FPS = 10
ELSEWHERE = 'lab.example'  # the browser takes this for another machine; it is this one
FLAGS = ['--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking',
         '--disable-component-update', '--disable-sync', '--use-fake-device-for-media-stream',
         f'--host-resolver-rules=MAP {ELSEWHERE} 127.0.0.1']
SETTINGS = {'notification': {'fetchNews': 'false', 'checkForUpdates': False}, 'themes': {'theme': 'JupyterLab Light'}}


def hand_frames(n=3, seed=17, n_frames=24):
    "A drawn hand with `n` fingers that goes around in a circle: RGB arrays, `SIZE`."
    (h, w), r = SIZE, 40
    img = draw_hand(n, seed=seed, size=(h + 2*r, w + 2*r), difficulty=.35).img
    angles = 2*np.pi*np.arange(n_frames)/n_frames
    corners = [(round(r + r*np.sin(o)), round(r + r*np.cos(o))) for o in angles]
    return [img[y:y + h, x:x + w] for y, x in corners]


def write_y4m(path, frames, fps=FPS):
    "The raw video that Chromium takes for a camera."
    h, w = frames[0].shape[:2]
    with open(path, 'wb') as f:
        f.write(f'YUV4MPEG2 W{w} H{h} F{fps}:1 Ip A1:1 C420jpeg\n'.encode())
        for frame in frames: f.write(b'FRAME\n' + cv2.cvtColor(frame, cv2.COLOR_RGB2YUV_I420).tobytes())
    return path


def free_port():
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        return s.getsockname()[1]


class Lab:
    "A running JupyterLab: `url`, and the `folder` it serves."
    def __init__(self, folder, port, token):
        self.folder, self.port, self.token = Path(folder), port, token

    def url(self, path, host='localhost'): return f'http://{host}:{self.port}/{path}?token={self.token}'

    def page(self, name, host='localhost'):
        "Where the notebook `name` is, in a workspace of its own."
        return self.url(f'lab/workspaces/{name}/tree/{name}.ipynb', host)

    def wait(self, process):
        for _ in range(300):
            if process.poll() is not None: raise RuntimeError((self.folder/'lab.log').read_text())
            try: return urllib.request.urlopen(self.url('api/status'), timeout=5).read()
            except OSError: time.sleep(.1)
        raise TimeoutError((self.folder/'lab.log').read_text())

    def write(self, name, *cells):
        "A notebook of these code cells."
        nb = new_notebook(cells=[new_code_cell(o) for o in cells])
        nb.metadata.kernelspec = dict(name='python3', display_name='Python 3', language='python')
        nbformat.write(nb, self.folder/name)


@contextmanager
def run_lab(folder):
    "JupyterLab on `folder`, with settings of its own, reachable from this machine only."
    lab = Lab(folder, free_port(), secrets.token_hex(8))
    home = lab.folder/'.jupyter'
    for name, value in SETTINGS.items():
        path = home/'settings'/'@jupyterlab'/'apputils-extension'/f'{name}.jupyterlab-settings'
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(value))
    env = os.environ | dict(JUPYTER_CONFIG_DIR=str(home/'config'), JUPYTER_RUNTIME_DIR=str(home/'runtime'),
                            JUPYTERLAB_SETTINGS_DIR=str(home/'settings'), IPYTHONDIR=str(home/'ipython'),
                            JUPYTERLAB_WORKSPACES_DIR=str(home/'workspaces'), OMP_NUM_THREADS='1')
    args = [sys.executable, '-m', 'jupyterlab', '--no-browser', '--allow-root', '--ip=127.0.0.1',
            f'--port={lab.port}', f'--ServerApp.root_dir={lab.folder}', f'--IdentityProvider.token={lab.token}',
            f'--ServerApp.local_hostnames=["localhost", "{ELSEWHERE}"]',
            "--ServerApp.jpserver_extensions={'jupyter_lsp': False}", '--LabApp.expose_app_in_browser=True']
    with open(lab.folder/'lab.log', 'w') as log:
        process = subprocess.Popen(args, cwd=folder, env=env, stdout=log, stderr=log)
    try:
        lab.wait(process)
        yield lab
    finally:
        process.terminate()
        try: process.wait(20)
        except subprocess.TimeoutExpired: process.kill()


@contextmanager
def run_browser(playwright, video, *flags):
    "Headless Chromium, with a video file for its camera."
    chromium = shutil.which('chromium') or shutil.which('google-chrome')
    if not chromium: pytest.skip('chromium, in which the widget is tried, is not installed')
    browser = playwright.chromium.launch(executable_path=chromium,
                                         args=[*FLAGS, f'--use-file-for-fake-video-capture={video}', *flags])
    try: yield browser
    finally: browser.close()


class Shown:
    "A page with a notebook; its first cell shows a widget, the element of the class `css`."
    css = ''

    def __init__(self, page): self.page = page

    def open(self, url):
        "Wait until the notebook can run."
        self.page.goto(url)
        self.page.wait_for_selector('.jp-Notebook .jp-Cell')
        self.page.wait_for_function(IDLE, timeout=60000)

    def do(self, command, **args):
        self.page.evaluate('([command, args]) => window.jupyterapp.commands.execute(command, args)', [command, args])

    def run(self, code):
        "Have the kernel run `code`, without waiting for it."
        kernel = self.page.evaluate_handle(KERNEL)
        self.page.evaluate('([kernel, code]) => { kernel.requestExecute({code}); }', [kernel, code])

    def find(self, selector): return self.page.locator(f'.{self.css} {selector}')

    def text(self, selector): return self.find(selector).inner_text()

    def wait_text(self, selector, text, timeout=10000):
        try: self.find(selector).filter(has_text=text).wait_for(timeout=timeout)
        except TimeoutError as e:
            raise AssertionError(f'{text!r} did not come, there is {self.find(selector).all_inner_texts()}') from e

    def click(self, text): self.find(f'button:has-text("{text}")').click()

    def press(self, *keys):
        for key in keys: self.page.keyboard.press(key)

    def cells(self): return self.page.evaluate("""() => window.jupyterapp.shell.currentWidget.content.widgets.map(
        o => o.model.type + ': ' + o.model.sharedModel.getSource())""")

    def look(self, name, what=None):
        "A picture for a person, when somebody wants to see it."
        folder = os.environ.get('DIGITS_SCREENSHOTS')
        if folder: (what or self.page).screenshot(path=Path(folder)/f'{name}.png')

    def set_look(self, theme, width, height):
        self.do('apputils:change-theme', theme=f'JupyterLab {theme}')
        self.page.set_viewport_size(dict(width=width, height=height))
        self.page.wait_for_timeout(800)

    def find_wide(self):
        "What sticks out of the widget to the right."
        return self.page.evaluate("""css => {
            const root = document.querySelector(css), right = o => o.getBoundingClientRect().right;
            return [...root.querySelectorAll('*')].filter(o => right(o) > right(root) + 1).map(o => o.outerHTML);
        }""", f'.{self.css}')


def open_page(browser, timeout=15000):
    "A page beside the others, so that JupyterLab comes from the cache."
    context = browser.contexts[0] if browser.contexts else browser.new_context(viewport=dict(width=1280, height=860))
    page = context.new_page()
    page.set_default_timeout(timeout)
    return page

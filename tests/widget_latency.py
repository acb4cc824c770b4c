"How long the widget takes for a picture, in a real browser: measures it and prints JSON, for `90_benchmarks`."
import json
import tempfile
import time
from pathlib import Path

from lab import hand_frames, run_browser, run_lab, write_y4m
from playwright.sync_api import sync_playwright
from test_widget import open_widget

# from the key to the word "Saved." in the status line, which the widget shows when the kernel has reported the file
STOPWATCH = """() => {
  const status = document.querySelector('.dc-status');
  let pressed = 0;
  window.waits = [];
  document.addEventListener('keydown', event => {
    if (event.key !== ' ' || event.repeat) return;
    pressed = performance.now();
    status.textContent = '';
  }, true);
  new MutationObserver(() => {
    if (status.textContent === 'Saved.') window.waits.push(performance.now() - pressed);
  }).observe(status, { childList: true });
}"""


def measure(widget, n_shots=25, hold_s=6):
    "Milliseconds of single shots, and how many pictures a press of `hold_s` seconds brings."
    widget.start()
    widget.page.evaluate(STOPWATCH)
    for i in range(n_shots):
        widget.press(str(i % 5 + 1), ' ')
        widget.page.wait_for_function(f'window.waits.length > {i}')
        time.sleep(.2)  # the hand moves on
    waits, before = widget.page.evaluate('waits'), len(widget.files)
    widget.page.keyboard.down(' ')
    time.sleep(hold_s)
    widget.page.keyboard.up(' ')
    kept, skipped = widget.result('Recorded')
    widget.wait_files(before + kept)
    return {'first_ms': waits[0], 'shutter_ms': waits[1:], 'hold_s': hold_s, 'kept': kept, 'skipped': skipped}


def main():
    with tempfile.TemporaryDirectory() as folder, run_lab(folder) as lab, sync_playwright() as playwright:
        video = write_y4m(Path(folder)/'hand.y4m', hand_frames(), fps=30)
        with run_browser(playwright, video) as browser, open_widget(browser, lab, 'latency') as widget:
            print(json.dumps(measure(widget)))


if __name__ == '__main__': main()

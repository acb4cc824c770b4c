"How long a merge takes, in one run beside decoding the same files once: makes photos, measures, prints JSON."
import argparse
import json
import os
import resource
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import psutil
from PIL import Image

from digits_kit.folder import NUMBERS
from digits_kit.hands import draw_hand
from digits_kit.merge import merge_digits
from digits_kit.plan import plan_merge


def make_photos(root, n, n_hands=60, per_person=1000, side=(640, 480)):
    "`n` JPEGs of drawn hands in folders `digits_zzz`, each turned, in its own light and with its own noise."
    hands = [(i%5 + 1, Image.fromarray(draw_hand(i%5 + 1, seed=i, size=(240, 320)).img).resize(side)) for i in range(n_hands)]
    def make(i):
        rng = np.random.default_rng(i)
        number, hand = hands[i%n_hands]
        turned = hand.rotate(rng.uniform(-40, 40), Image.Resampling.BILINEAR, fillcolor=tuple(rng.integers(0, 255, 3).tolist()))
        light = Image.fromarray(rng.integers(0, 255, (6, 8, 3), dtype=np.uint8)).resize(side, Image.Resampling.BICUBIC)
        img = np.asarray(Image.blend(turned, light, .4), np.int16) + rng.integers(-5, 6, (*side[::-1], 1), dtype=np.int16)
        path = root/f'digits_{100 + i//per_person}'/NUMBERS[number]/f'IMG_{i:05}.jpg'
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(img.clip(0, 255).astype(np.uint8)).save(path, quality=90)
    with ThreadPoolExecutor() as threads: list(threads.map(make, range(n)))
    return sorted(root.iterdir())


@contextmanager
def measured(name, found):
    "Seconds, seconds of the processor, and the largest memory in MB of a block, into `found`."
    process, ended, peak = psutil.Process(), threading.Event(), [0]
    def watch():
        while not ended.wait(.05): peak[0] = max(peak[0], process.memory_info().rss)
    watcher = threading.Thread(target=watch)
    begun, before = time.perf_counter(), process.cpu_times()
    watcher.start()
    yield
    ended.set(), watcher.join()
    used = process.cpu_times()
    found[name] = {'seconds': round(time.perf_counter() - begun, 1), 'rss': round(peak[0]/2**20),
                   'cpu': round(used.user + used.system - before.user - before.system, 1)}
    print(name, found[name], flush=True)


def read_once(sources):
    "Decode every file with Pillow, in one thread."
    for path in (path for source in sources for path in source.rglob('*.jpg')): Image.open(path).load()


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('-n', type=int, default=10_000, help='photos')
    parser.add_argument('--size', type=int, nargs=2, default=[640, 480], help='width and height')
    parser.add_argument('--only-plan', action='store_true')
    parser.add_argument('--keep', type=Path, help='folder in which the photos stay for the next run')
    args, found = parser.parse_args(), {}
    with tempfile.TemporaryDirectory() as tmp:
        pool, into = args.keep or Path(tmp)/'pool', Path(tmp)/'combined'
        sources = sorted(pool.iterdir()) if pool.is_dir() else make_photos(pool, args.n, side=tuple(args.size))
        with measured('decoding once', found): read_once(sources)
        with measured('plan', found): plan = plan_merge(sources, into)
        found['photos'] = len(plan.photos)
        if not args.only_plan:
            with measured('merge', found): merge_digits(sources, into)
            with measured('merge again', found): merge_digits(sources, into)
    for name in ('plan', 'merge'):
        if name in found: found[name]['to decoding'] = round(found[name]['cpu']/found['decoding once']['cpu'], 2)
    print(json.dumps(found | {'cores': os.cpu_count(), 'peak MB': resource.getrusage(resource.RUSAGE_SELF).ru_maxrss//1024}))


if __name__ == '__main__': main()

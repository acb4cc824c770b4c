"What can be wrong with the folders and zips of others, and what a killed merge leaves: nothing is lost, mixed or written elsewhere."
import hashlib
import io
import os
import stat
import subprocess
import sys
import tempfile
import time
import unicodedata
import warnings
import zipfile
from collections import Counter
from itertools import count
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from PIL import Image

from digits_kit.data import get_dls
from digits_kit.folder import COLUMNS, NUMBERS, read_manifest, read_rows, write_rows
from digits_kit.landing import quarantine
from digits_kit.merge import merge_digits, pixels_only
from digits_kit.photos import as_rgb
from digits_kit.sources import find_photos
from digits_kit.splits import split_report

ROOT = Path(__file__).parents[1]
LABELS = NUMBERS[1:6]


def picture(seed, size=(48, 36)):
    "A picture that is like no other, and not like itself when turned."
    small = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return Image.fromarray(small).resize(size, Image.Resampling.BICUBIC)


def save(img, kind, **kwargs):
    out = io.BytesIO()
    img.save(out, kind, **kwargs)
    return out.getvalue()


def rotated(img):
    "A JPEG that lies on its side, and says so."
    exif = Image.Exif()
    exif[0x0112] = 6
    return save(img.transpose(Image.Transpose.ROTATE_90), 'JPEG', exif=exif)


def telling(img):
    "A JPEG whose EXIF holds what no table can hold."
    exif = Image.Exif()
    exif[0x0110] = '=cmd()\r\nof "a", phone\x00;'
    exif.get_ifd(0x8769)[0x9003] = '2026:03:02 09:10:11'
    return save(img, 'JPEG', exif=exif)


GOOD = {
    '.jpg': lambda img: save(img, 'JPEG'), '.JPG': rotated, '.jpeg': telling, '.png': lambda img: save(img, 'PNG'),
    '.Png': lambda img: save(img.convert('P'), 'PNG'), '.jpe': lambda img: save(img.convert('CMYK'), 'JPEG'),
    '.gif': lambda img: save(img, 'GIF', save_all=True, append_images=[Image.new('RGB', img.size, 'red')]),
    '.webp': lambda img: save(img, 'WEBP'), '.pgm': lambda img: save(img.convert('L'), 'PPM'),
    '.tif': lambda img: save(Image.fromarray(np.asarray(img.convert('L')).astype(np.uint16)*257), 'TIFF'),
    '.bmp': lambda img: save(img.convert('RGB'), 'BMP')}
BOMB = b'P5\n60000 60000\n255\n'
BAD = {'.jpg': lambda img: b'', '.JPG': lambda img: b'no picture at all', '.jpeg': lambda img: save(img, 'JPEG', quality=95)[:-200],
       '.png': lambda img: save(img, 'PNG')[:300], '.pgm': lambda img: BOMB, '.txt': lambda img: b'a page', '.mov': lambda img: b'film',
       '.zip': lambda img: b'PK\3\4 torn', '.rar': lambda img: b'Rar!'}

ODD = ['a b', "it's", '"x"', 'x;y', 'p|q', '=1+2', '-', 'a\tb', 'two\nlines', 'ünï', 'u\u0308ni', '手', '\udcff\udcfe', 'a\\b', '%s{}', 'con',
       'x'*200, 'IMG (1)', 'IMG_1', 'img_1', '.hid', '~$lock', 'e\u202efdp', 'two']
spelled = st.sampled_from([form for i, label in enumerate(LABELS, 1) for form in (label, label.upper(), label.title(), str(i), f'0{i}')])
around = st.lists(st.sampled_from(['train', 'Train', 'VALID', 'val', 'production', 'Production Office', 'data', 'digits', 'x'*120, 'ö\udcff',
                                   'a|b', '=x', 'l\nm', ' ']), max_size=3)
named = st.tuples(around, spelled, st.sampled_from(ODD))
photo = st.tuples(named, st.booleans(), st.sampled_from(sorted(GOOD)), st.sampled_from(sorted(BAD)), st.integers(0, 40),
                  st.sampled_from(['plain']*6 + ['read-only', 'link', 'pipe', 'link out']))
words = st.sampled_from(['', 'anna', '../../etc/passwd', '=cmd()', 'x'*5000, 'a/b\\c', 'Ünal', 's1', '\u202e', '-', '0'])
lies = st.fixed_dictionaries({'kind': st.sampled_from(['none', 'none', 'rows', 'columns', 'utf-16', 'bytes', 'empty', 'sep']), 'persons': st.lists(
    words, min_size=2, max_size=2), 'sessions': st.lists(words, min_size=1, max_size=3), 'bursts': st.lists(words, min_size=1, max_size=2)})
source = st.fixed_dictionaries({
    'photos': st.lists(photo, min_size=1, max_size=8), 'as zip': st.booleans(), 'manifest': lies,
    'entries': st.sampled_from(['', '', '../', '/', 'C:\\Windows\\', '..\\..\\', './/']),
    'damage': st.sampled_from(['none', 'none', 'none', 'locked', 'crc', 'cut', 'twice', 'inner'])})


def manifest(said, names):
    "The bytes of a manifest that says anything of photos `names`."
    out, kind = io.StringIO(), said['kind']
    if kind == 'bytes': return b'path,split\xff\xfe,\0\0\n"'
    if kind == 'empty': return b''
    if kind == 'sep': return b'sep=;'
    if kind == 'columns': return b'file,who\na,b\n'
    import csv
    writer = csv.DictWriter(out, COLUMNS, lineterminator='\n')
    writer.writeheader()
    for i, name in enumerate(['../../x.jpg', '/etc/passwd', *names]):
        if any(ord(char) < 32 or 0xd800 <= ord(char) < 0xe000 for char in name): continue
        pick = lambda values: values[i%len(values)]
        writer.writerow({'path': name, 'split': 'valid', 'label': 'five', 'person': pick(said['persons']), 'session': pick(said['sessions']),
                         'burst': pick(said['bursts']), 'sha256': 'no', 'phash': 'no', 'camera': '@SUM(A1)', 'taken_at': 'yesterday'})
    return out.getvalue().encode('utf-16' if kind == 'utf-16' else 'utf-8')


def as_zip(entries, made):
    "The bytes of a zip of `entries`, with what may be wrong with one."
    out = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(out, 'w', zipfile.ZIP_DEFLATED) as z:
        warnings.simplefilter('ignore')  # of names that are there twice
        for i, (name, data) in enumerate(entries.items()):
            info = zipfile.ZipInfo(made['entries'] + name.encode('utf-8', 'replace').decode())
            z.writestr(info, data, zipfile.ZIP_DEFLATED)
            if made['damage'] == 'twice' and i == 0: z.writestr(info, data)
        if made['damage'] == 'inner':
            z.writestr('deeper/digits_55.zip', as_zip({'one/deep.jpg': save(picture(900), 'JPEG')}, made | {'damage': 'none'}))
    data = bytearray(out.getvalue())
    first = data.find(b'PK\1\2')
    if made['damage'] == 'locked': data[first + 8] |= 1
    if made['damage'] == 'crc': data[first + 16] ^= 255
    return bytes(data)


class World:
    "Sources that were built from a description, beside things that nobody may touch."
    def __init__(self, tmp, described, number=count(1)):
        self.tmp, self.sources = tmp, []
        (tmp/'outside').mkdir()
        (tmp/'outside'/'one').mkdir()
        (tmp/'outside'/'one'/'secret.jpg').write_bytes(save(picture(999), 'JPEG'))
        for i, made in enumerate(described):
            parent = tmp/f'from {i}'
            parent.mkdir()
            self.sources.append(self.build(parent/f'digits_{100 + i%2}', made))

    def build(self, folder, made):
        files = {}
        for (parts, label, stem), good, right, wrong, seed, kind in made['photos']:
            suffix = right if good else wrong
            name = '/'.join([*(part for part in parts if made['as zip'] is False or part), label, stem + suffix])
            files.setdefault(name, ((GOOD if good else BAD)[suffix](picture(seed)), kind))
        entries = {name: data for name, (data, kind) in files.items()}
        if made['manifest']['kind'] != 'none': entries['manifest.csv'] = manifest(made['manifest'], list(files))
        if made['as zip']:
            folder.with_suffix('.zip').write_bytes(as_zip(entries, made))
            return folder.with_suffix('.zip')
        for name, data in entries.items(): self.put(os.path.join(folder, name), data, files.get(name, (0, 'plain'))[1])
        os.symlink(folder, folder/'round', target_is_directory=True)
        os.symlink(self.tmp/'outside', folder/'out', target_is_directory=True)
        return folder

    def put(self, path, data, kind):
        os.makedirs(os.path.dirname(path), exist_ok=True)
        if os.path.lexists(path): return
        if kind == 'link': return os.symlink('nowhere', path)
        if kind == 'link out': return os.symlink(self.tmp/'outside'/'one'/'secret.jpg', path)
        if kind == 'pipe': return os.mkfifo(path)
        with open(path, 'wb') as f: f.write(data)
        if kind == 'read-only': os.chmod(path, 0o400)  # binds nobody where the tests run as root

    def look(self):
        "What is there outside of the target: kind, time and bytes by path."
        found = {}
        for parent, folders, names in os.walk(self.tmp):
            if parent == str(self.tmp) and 'into' in folders: folders.remove('into')
            for path in (os.path.join(parent, name) for name in [*folders, *names]):
                info = os.lstat(path)
                data = open(path, 'rb').read() if stat.S_ISREG(info.st_mode) else None
                found[path] = (stat.S_IFMT(info.st_mode), info.st_mtime_ns, data)
        return found


def tree(root): return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob('*') if path.is_file()}


def spells(name):
    "The label that a name of a source spells."
    said = {LABELS[int(part) - 1] if part.isdecimal() else part.lower() for part in name.split('/')[:-1]
            if part.lower() in LABELS or part.isdecimal() and 1 <= int(part) <= 5}
    return said.pop() if len(said) == 1 else ''


def readable(data):
    "The pixels of a photo upright, as they land; None = it has none."
    try:
        if data == BOMB: return None
        return np.asarray(as_rgb(pixels_only(data)))
    except ValueError: return None


def check_merged(world, into, plan, found):
    "Raise unless each readable photo is there once with its label and its pixels, and all others are named."
    rows = read_rows(into)
    by_source = {row['source']: row for row in rows}
    assert len(by_source) == len(rows) == len({row['sha256'] for row in rows})
    pixels = {row['source']: np.asarray(as_rgb((into/row['path']).read_bytes())) for row in rows}
    shas, kept = {row['sha256'] for row in rows}, {row['source_sha256']: row for row in rows}
    labels = {}
    for photo in found.photos:
        try: data = photo.read()
        except ValueError: data = b''
        labels.setdefault(hashlib.sha256(data).hexdigest(), set()).add(photo.label)
    for photo in found.photos:
        assert photo.label == spells(photo.name), photo.name
        try: data = photo.read()
        except ValueError: data = b''
        right, sha, name = readable(data), hashlib.sha256(data).hexdigest(), photo.name
        if name in by_source:
            row = by_source[name]
            assert right is not None and (right == pixels[name]).all() and row['source_sha256'] == sha
            assert row['label'] == photo.label == row['path'].split('/')[1] and row['split'] == row['path'].split('/')[0]
            continue
        why = plan.skipped[name]  # all else is named
        if right is None: assert 'another' not in why and 'nearly' not in why, (name, why)
        elif len(labels[sha]) > 1: assert 'the same file under another label' in why and sha not in kept
        elif 'the same file as another' in why: assert sha in kept or any(word in plan.skipped[why.partition(': ')[2]] for word in (
            'nearly', 'of a session', 'the same pixels')), (name, why)
        elif 'the same pixels as another' in why: assert hashlib.sha256(pixels_only(data)).hexdigest() in shas
        else: assert 'production' in why or 'on two sides' in why or 'other side' in why, (name, why)
    assert {row['source'] for row in rows} <= {photo.name for photo in found.photos}


def check_usable(into):
    "Raise unless the kit reads what was merged, without a leak."
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        df = read_manifest(into)
    assert df.attrs['left_out'] == {} and not len(split_report(df).crossings)
    for column in df.columns:
        for value in df[column].astype(str):
            assert not value.startswith(('=', '+', '@')) and len(value) <= 500, value
            assert not {unicodedata.category(char) for char in value} & {'Cc', 'Cs', 'Zl', 'Zp'}, value
    if (df.groupby('label').split.agg(set).map(lambda sides: {'train', 'valid'} <= sides)).all() and len(df) > 9:
        dls = get_dls(into, size=32, bs=2)
        assert dls.train.n + dls.valid.n == df.split.isin(['train', 'valid']).sum()


@settings(max_examples=20, deadline=None, derandomize=True, database=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck))
@given(st.lists(source, min_size=1, max_size=3), st.booleans())
def test_anything(described, twice):
    with tempfile.TemporaryDirectory() as tmp:
        world, into = World(Path(tmp).resolve(), described), Path(tmp).resolve()/'into'
        sources = world.sources + world.sources[:twice]
        before = world.look()
        found = find_photos(sources)
        unclear = {folder.rpartition('/')[2]: None for folder in found.unclear()}
        if unclear:
            with pytest.raises(ValueError, match='label of .* not known'): merge_digits(sources, into)
            assert not into.exists()
            found = find_photos(sources, given=unclear)
        plan = merge_digits(sources, into, unclear)
        assert world.look() == before, 'something outside of the target has changed'
        if not into.exists(): return
        check_merged(world, into, plan, found)
        check_usable(into)
        after = tree(into)
        again = merge_digits(sources, into, unclear)
        assert tree(into) == after and world.look() == before
        assert set(again.photos.name) == set(plan.photos.name) and again.skipped.keys() == plan.skipped.keys()


def write(folder, photos):
    "Files of a source: bytes by name."
    for name, data in photos.items():
        (folder/name).parent.mkdir(parents=True, exist_ok=True)
        (folder/name).write_bytes(data)
    return folder


def jpegs(n, seed, label='one'): return {f'{label}/{i}.jpg': save(picture(1000*seed + i), 'JPEG') for i in range(n)}


def test_sources_of_the_same_name(tmp_path):
    a, b = write(tmp_path/'a'/'digits_7', jpegs(3, 1)), write(tmp_path/'b'/'digits_7', jpegs(3, 2))
    plan = merge_digits([a, b, a], tmp_path/'all')
    assert len(read_rows(tmp_path/'all')) == 6 and set(plan.photos.person) == {'digits_7'}
    assert Counter(plan.skipped.values()) == {f'the same file as another: digits_7/one/{i}.jpg': 1 for i in range(3)}


def test_a_photo_of_ones_own_without_a_manifest(tmp_path):
    mine, photos = tmp_path/'mine', jpegs(3, 1)
    write(mine/'train', photos)
    write(mine/'valid', {'two/9.jpg': save(picture(5), 'JPEG')})
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        merge_digits(write(tmp_path/'digits_7', photos | jpegs(2, 9, 'two')), mine)
        assert len(read_manifest(mine)) == 6 and not len(split_report(read_manifest(mine)).crossings)


def test_equal_pixels_under_two_labels(tmp_path):
    img = picture(3)
    source = write(tmp_path/'digits_7', {'one/a.jpg': save(img, 'JPEG'), 'two/b.jpg': save(img, 'JPEG', comment='again')})
    plan = merge_digits(source, tmp_path/'all')
    assert [row['label'] for row in read_rows(tmp_path/'all')] == ['one']
    assert plan.skipped == {'digits_7/two/b.jpg': 'the same pixels as another: digits_7/one/a.jpg'}


def test_bombs_and_many_entries(tmp_path):
    with zipfile.ZipFile(tmp_path/'digits_7.zip', 'w', zipfile.ZIP_DEFLATED) as z:
        for name, data in jpegs(2, 1).items(): z.writestr(name, data)
        z.writestr('one/zeros.jpg', bytes(70*2**20))
        z.writestr('one/pixels.pgm', BOMB + bytes(10**6))
        z.writestr('a/'*20_000 + 'one/deep.jpg', b'')
        z.writestr('one/' + 'x'*60_000 + '.jpg', save(picture(77), 'JPEG'))
        z.writestr('1'*5000 + '/one/many-digits.jpg', save(picture(78), 'JPEG'))
        for i in range(70_000): z.writestr(zipfile.ZipInfo(f'notes/{i}.txt'), b'')
    begun = time.perf_counter()
    plan = merge_digits(tmp_path/'digits_7.zip', tmp_path/'all')
    assert len(plan.photos) == 4 and len(plan.skipped) == 70_003, plan
    assert plan.skipped['digits_7.zip/one/zeros.jpg'] == '70 MB when unpacked: too large for a photo'
    assert 'million pixels' in plan.skipped['digits_7.zip/one/pixels.pgm']
    assert len(read_rows(tmp_path/'all')) == 4 and time.perf_counter() - begun < 30


def test_a_folder_deeper_than_paths_may_be(tmp_path):
    source = write(tmp_path/'digits_7', jpegs(1, 1))
    at = os.open(source, os.O_RDONLY)
    for _ in range(30):
        os.mkdir('d'*200, dir_fd=at)
        at = os.open('d'*200, os.O_RDONLY, dir_fd=at)
    plan = merge_digits(source, tmp_path/'all')
    assert len(plan.photos) == 1 and [why for why in plan.skipped.values()] == ['cannot be read (File name too long)']


def test_peers_in_production(tmp_path):
    "A lying manifest: one burst in train, valid and two splits of production."
    source, rows = tmp_path/'digits_7', []
    for i, split in enumerate(['train', 'valid', 'production', 'production_office']):
        write(source/split, jpegs(2, i))
        rows += [{'path': f'{split}/one/{k}.jpg', 'burst': 'all'} for k in range(2)]
    write_rows(source, rows)
    plan = merge_digits(source, tmp_path/'all')
    assert Counter(plan.photos.split) == {'production': 4} and len(plan.skipped) == 4
    assert not len(split_report(read_manifest(tmp_path/'all')).crossings)


KILLER = """
import os, random, signal, sys, time
import joblib
from pathlib import Path
from digits_kit import merge, plan
merge._BATCH = 6  # as many moments between two batches as a large merge has
sources, trees, land, rng = [Path(o) for o in sys.argv[2].split('|')], sys.argv[3].split('|'), merge._land, random.Random(17)

def run(into, wait_for_landing, delay):
    come, go = os.pipe()
    pid = os.fork()
    if not pid:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        def landing(plan): os.write(go, b'x'), land(plan)
        merge._land = landing
        try: merge.merge_digits(sources, into)
        finally: os._exit(0)
    os.close(go)
    begun = time.perf_counter()
    if wait_for_landing: os.read(come, 1)
    planned = time.perf_counter()
    if delay is not None: time.sleep(delay), os.kill(pid, signal.SIGKILL)
    killed = os.WIFSIGNALED(os.waitpid(pid, 0)[1])
    os.close(come)
    return killed, planned - begun, time.perf_counter() - planned

_, planning, lasting = run(sys.argv[1], True, None)
for tree in trees:
    for i in range(5): print(run(tree, i, rng.uniform(0, lasting/3 if i else planning))[0], flush=True)
    time.sleep(.05)
    if len(sys.argv) > 4: continue
    os.rename(tree, tree + '.killed')
    os.system(f'cp -a {tree}.killed {tree}')
    run(tree, True, None)
"""


def people(tmp):
    "A folder with photos of one's own, and sources of three others that hold a little of everything."
    mine = write(tmp/'mine', {f'{split}/{name}': data for k, split in enumerate(['train', 'valid']) for name, data in jpegs(3, 50 + k).items()})
    write_rows(mine, [row | {'person': 'me', 'session': row['split']} for row in read_manifest(mine).to_dict('records')])
    quarantine(mine, 'train/one/2.jpg', 'blurred')
    anna = write(tmp/'digits_1', {f'train/{name}': data for k, label in enumerate(LABELS) for name, data in jpegs(6, k, label).items()})
    write_rows(anna, [{'path': path.relative_to(anna).as_posix(), 'person': 'anna', 'session': f'anna-{i%4}'}
                      for i, path in enumerate(sorted(anna.rglob('*.jpg')))])
    again = save(picture(2), 'JPEG', quality=60)
    ben = write(tmp/'digits_2', jpegs(12, 11) | jpegs(12, 12, 'two') | {'one/again.jpg': again, 'one/torn.jpg': again[:500],
                                                                      'one/same.jpg': save(picture(11_003), 'JPEG', comment='same pixels')})
    carl = write(tmp/'digits_3', {f'{split}/{name}': data for k, split in enumerate(['train', 'production']) for name, data in jpegs(8, 30 + k).items()})
    return mine, [anna, ben, carl]


@pytest.mark.skipif(not hasattr(os, 'fork'), reason='this system cannot fork')
def test_killed_at_fifty_moments(tmp_path):
    mine, sources = people(tmp_path)
    trees = [tmp_path/f'tree{i}' for i in range(11)]
    for into in trees: subprocess.run(['cp', '-a', mine, into], check=True)
    words = [trees[0], '|'.join(map(str, sources)), '|'.join(map(str, trees[1:]))]
    env = os.environ | {'OMP_NUM_THREADS': '1', 'PYTHONPATH': str(ROOT)}
    done = subprocess.run([sys.executable, '-c', KILLER, *map(str, words)], env=env, capture_output=True, encoding='utf-8')
    assert done.returncode == 0 and done.stdout.count('True') >= 45, done.stdout + done.stderr
    right = tree(trees[0])
    assert sum(name.endswith('.jpg') for name in right) == 6 + 30 + 25 + 16 and 'SOURCES.md' in right
    halves = 0
    for into in trees[1:]:
        left = tree(into.with_name(into.name + '.killed'))
        torn = [name for name, data in left.items() if name.endswith('.jpg') and not name.startswith('.') and right.get(name) != data]
        assert torn == [], 'a photo that is half there, or another one, has been seen'
        halves += 0 < len(left) < len(right) and len(left) > 8
        assert tree(into) == right
    assert halves >= 5, 'they were killed before or after the landing'

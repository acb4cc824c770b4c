"Nothing that a photo's file says besides its pixels comes through sharing and merging."
import csv
import io
import os
import struct
import warnings
import zipfile
import zlib

import numpy as np
import pytest
from PIL import Image, ImageCms, PngImagePlugin

from digits_kit.folder import COLUMNS, read_manifest, read_rows, write_rows
from digits_kit.merge import merge_digits, share_digits
from digits_kit.photos import as_rgb

WORDS = ['Annabel', 'Zyxwon', 'SN-77-4711', '2019:07:13', '2019-07-13', 'Quuxphone', 'Wohnzimmer', 'geheim', 'Profil-Annabel']
GPS = (b'\x00\x00\x00\x2f\x00\x00\x00\x01', b'\x2f\x00\x00\x00\x01\x00\x00\x00')  # 47 degrees, in both orders of bytes
PLANTED = [word.encode(code) for word in WORDS for code in ('utf-8', 'utf-16-le', 'utf-16-be')] + list(GPS)
INFO = {'jfif', 'jfif_version', 'jfif_unit', 'jfif_density'}


def picture(seed, size=(96, 64)):
    "A picture whose four corners tell how it is turned."
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 256, (8, 12, 3), dtype=np.uint8)
    small[:2, :3], small[:2, -3:], small[-2:, :3], small[-2:, -3:] = (220, 20, 20), (20, 200, 20), (20, 20, 220), (230, 230, 30)
    return Image.fromarray(small).resize(size, Image.Resampling.NEAREST)


def thumbnail():
    "The bytes of a JPEG of another picture."
    out = io.BytesIO()
    Image.new('RGB', (40, 30), 'purple').save(out, 'JPEG', comment=b'Zyxwon thumbnail')
    return out.getvalue()


def ifd(entries, at):
    "A directory of TIFF that begins at `at`: entries `(tag, kind, count, value)`, and what does not fit behind it."
    head, tail, end = struct.pack('<H', len(entries)), b'', at + 2 + 12*len(entries) + 4
    for tag, kind, n, value in sorted(entries):
        if len(value) > 4: value, tail = struct.pack('<I', end + len(tail)), tail + value + b'\0'*(len(value)%2)
        head += struct.pack('<HHI', tag, kind, n) + value.ljust(4, b'\0')
    return head, tail


def exif_bytes(orientation=1):
    "EXIF with place, maker, serial number, time and a thumbnail of another picture."
    text = {0x010F: 'Quuxphone', 0x0110: 'Quuxphone 9', 0x013B: 'Annabel', 0x8298: 'Annabel geheim', 0x0132: '2019:07:13 10:11:12',
            0x010E: 'Wohnzimmer'}
    main = [(tag, 2, len(word) + 1, word.encode() + b'\0') for tag, word in text.items()] + [(0x0112, 3, 1, struct.pack('<H', orientation))]
    sub = [(0x9003, 2, 20, b'2019:07:13 10:11:12\0'), (0xA431, 2, 11, b'SN-77-4711\0'), (0x927C, 7, 6, b'geheim'),
           (0x9286, 7, 18, b'ASCII\0\0\0Wohnzimmer')]
    place = [(1, 2, 2, b'N\0'), (2, 5, 3, struct.pack('<6I', 47, 1, 22, 1, 33, 1))]
    thumb = thumbnail()
    def size(entries): return 2 + 12*len(entries) + 4 + sum(len(value) + len(value)%2 for *_, value in entries if len(value) > 4)
    at_sub, blocks = 8 + size(main) + 2*12, []
    at_gps = at_sub + size(sub)
    at_one = at_gps + size(place)
    one = [(0x0103, 3, 1, struct.pack('<H', 6)), (0x0201, 4, 1, struct.pack('<I', at_one + 2 + 12*3 + 4)),
           (0x0202, 4, 1, struct.pack('<I', len(thumb)))]
    main += [(0x8769, 4, 1, struct.pack('<I', at_sub)), (0x8825, 4, 1, struct.pack('<I', at_gps))]
    for entries, at, follows in [(main, 8, at_one), (sub, at_sub, 0), (place, at_gps, 0), (one, at_one, 0)]:
        head, tail = ifd(entries, at)
        blocks.append(head + struct.pack('<I', follows) + tail)
    return b'Exif\0\0II*\0\x08\0\0\0' + b''.join(blocks) + thumb


XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:li>Annabel, Wohnzimmer, 2019-07-13</rdf:li></x:xmpmeta>'


def icc():
    "A colour profile with a telling description."
    data = ImageCms.ImageCmsProfile(ImageCms.createProfile('sRGB')).tobytes()
    return data + b'desc\0\0\0\0Profil-Annabel'


def segment(marker, data): return b'\xff' + bytes([marker]) + struct.pack('>H', len(data) + 2) + data


def full_jpeg(img, orientation=1):
    "A JPEG that says all a JPEG can say."
    out = io.BytesIO()
    img.save(out, 'JPEG', quality=95, icc_profile=icc(), comment='Wohnzimmer von Annabel'.encode())
    iptc = b'Photoshop 3.0\x008BIM\x04\x04\0\0' + struct.pack('>I', 14) + b'\x1c\x02\x50\0\x07Annabel\0\0'
    more = segment(0xE1, exif_bytes(orientation)) + segment(0xE1, b'http://ns.adobe.com/xap/1.0/\0' + XMP) + segment(0xED, iptc)
    return out.getvalue()[:2] + more + out.getvalue()[2:] + b'geheim' + thumbnail()


def chunk(kind, data): return struct.pack('>I', len(data)) + kind + data + struct.pack('>I', zlib.crc32(kind + data))


def full_png(img):
    out, info = io.BytesIO(), PngImagePlugin.PngInfo()
    info.add_text('Author', 'Annabel')
    info.add_text('Comment', 'geheim '*50, zip=True)
    info.add_itxt('XML:com.adobe.xmp', XMP.decode())
    img.save(out, 'PNG', pnginfo=info, exif=exif_bytes(), icc_profile=icc())
    end = out.getvalue().rindex(b'IEND') - 4
    return out.getvalue()[:end] + chunk(b'tIME', struct.pack('>H5B', 2019, 7, 13, 1, 2, 3)) + out.getvalue()[end:] + b'geheim'


def saved(img, kind, **kwargs):
    out = io.BytesIO()
    img.save(out, kind, **kwargs)
    return out.getvalue()


def full_heic(img): return saved(img, 'HEIF', quality=95, exif=exif_bytes(), xmp=XMP)


def turned(img, orientation):
    "What a camera saves that was held so: with this orientation in its EXIF it is seen upright."
    back = {2: 'FLIP_LEFT_RIGHT', 3: 'ROTATE_180', 4: 'FLIP_TOP_BOTTOM', 5: 'TRANSPOSE', 6: 'ROTATE_90', 7: 'TRANSVERSE', 8: 'ROTATE_270'}
    return img.transpose(Image.Transpose[back[orientation]]) if orientation > 1 else img


def make_photos():
    "The bytes of photos of many kinds, and the upright picture of each, by file name."
    photos = {f'IMG_20190713_{i}_Annabel.jpg': (full_jpeg(turned(picture(i), i), i), picture(i)) for i in range(1, 9)}
    for i, (name, make) in enumerate([
        ('Screenshot Annabel.png', full_png), ('geheim.heic', full_heic),
        ('Wohnzimmer.webp', lambda img: saved(img, 'WEBP', quality=95, exif=exif_bytes(), xmp=XMP, icc_profile=icc())),
        ('scan Annabel.tif', lambda img: saved(img, 'TIFF', exif=Image.Exif(), artist='Annabel', description='Wohnzimmer')),
        ('film.gif', lambda img: saved(img, 'GIF', comment=b'Annabel')),
    ], 20): photos[name] = make(picture(i)), picture(i)
    return photos


@pytest.fixture(scope='module')
def mine(tmp_path_factory):
    "A data folder with such photos, of which a manifest tells more, and the pictures by the fingerprint of their files."
    root, pictures = tmp_path_factory.mktemp('private')/'Annabel', {}
    for i, (name, (data, img)) in enumerate(make_photos().items()):
        path = root/['train', 'valid'][i%2]/['one', 'two'][i//2%2]/name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        pictures[name] = img
    rows = read_manifest(root).to_dict('records')
    side = {'train': 'Annabel-2019-07-13', 'valid': 'Annabel-Wohnzimmer'}
    with open(root/'manifest.csv', 'w', newline='', encoding='utf-8') as f:
        writer = csv.DictWriter(f, [*COLUMNS, 'light', 'notes'])
        writer.writeheader()
        for row in rows: writer.writerow(row | {'person': 'Annabel', 'session': side[row['split']], 'burst': side[row['split']] + '-b01',
                                                'light': 'Wohnzimmer', 'notes': 'geheim', 'camera': 'Quuxphone'})
    return root, pictures


def test_the_secrets_are_in_the_sources(mine):
    "Else the others would find nothing in nothing."
    root, _ = mine
    held = {path.suffix: path.read_bytes() for path in root.rglob('*.*')}
    assert {suffix for suffix, data in held.items() if any(word in data for word in PLANTED)} == set(held)
    data = next(root.rglob('IMG*_6_*.jpg')).read_bytes()
    img = Image.open(io.BytesIO(data))
    exif = img.getexif()
    assert exif.get_ifd(0x8825)[2] == (47., 22., 33.) and exif.get_ifd(0x8769)[0xA431] == 'SN-77-4711' and exif[0x0112] == 6
    assert {'xmp', 'icc_profile', 'comment', 'photoshop'} <= img.info.keys() and data.count(thumbnail()) == 2 and GPS[1] in data


def files(place):
    "The files of a folder or zip: bytes by name."
    if place.is_dir(): return {path.relative_to(place).as_posix(): path.read_bytes() for path in place.rglob('*') if path.is_file()}
    with zipfile.ZipFile(place) as z: return {name: z.read(name) for name in z.namelist()}


def check_bare(held, names=()):
    "Raise unless no planted word is in files or their names, and their pictures hold pixels only."
    for name, data in held.items():
        for secret in [*PLANTED, thumbnail(), *(name.encode() for name in names)]:
            assert secret not in data and secret not in name.encode(), (name, secret)
        if not name.endswith('.jpg'): continue
        img = Image.open(io.BytesIO(data))
        img.load()
        assert not dict(img.getexif()) and img.info.keys() <= INFO and not img.applist[1:], (name, img.info.keys(), img.applist)
        assert data.endswith(b'\xff\xd9') and data.count(b'\xff\xd8\xff') == 1


def check_pixels(held, pictures):
    "Raise unless the photos are the pictures, upright, each once."
    left = {name: np.asarray(img, float) for name, img in pictures.items()}
    for name, data in held.items():
        if not name.endswith('.jpg'): continue
        pixels = np.asarray(as_rgb(data), float)
        far = {key: abs(pixels - img).mean() for key, img in left.items() if img.shape == pixels.shape}
        best = min(far, key=far.get)
        assert far[best] < 20, (name, best, far[best])
        del left[best]
    assert not left


@pytest.mark.parametrize('to', ['folder', 'shared.zip'])
def test_share(mine, tmp_path, to):
    root, pictures = mine
    before = files(root)
    shared = share_digits(root, tmp_path/to, 101, agreed=True)
    held = files(shared)
    assert files(root) == before and sum(name.endswith('.jpg') for name in held) == len(pictures) == 13
    check_bare(held, [name.rpartition('.')[0] for name in pictures])
    check_pixels(held, pictures)
    rows = read_rows(shared) if shared.is_dir() else read_rows('x', held['digits_101/manifest.csv'])
    assert {(row['person'], row['taken_at'], row['camera'], row['light']) for row in rows} == {('digits_101-01', '', '', '')}
    assert len({row['session'] for row in rows}) == 2 and 'notes' not in rows[0]
    left = [path for path in tmp_path.rglob('*') if path.is_file() and shared not in [path, *path.parents]]
    assert left == []
    if not shared.is_dir():
        raw = shared.read_bytes()
        assert not [secret for secret in PLANTED[:-2] if secret in raw]
        with zipfile.ZipFile(shared) as z:
            assert {entry.date_time for entry in z.infolist()} == {(1980, 1, 1, 0, 0, 0)} and not z.comment
            assert not any(entry.comment or entry.extra for entry in z.infolist())


def test_merge_takes_pixels_only(mine, tmp_path):
    root, pictures = mine
    merge_digits(root, tmp_path/'all')
    held = {name: data for name, data in files(tmp_path/'all').items() if name.endswith('.jpg')}  # the manifest is one's own
    check_bare(held)
    check_pixels(held, pictures)


def test_what_is_shared_can_be_merged(mine, tmp_path):
    root, pictures = mine
    shared = share_digits(root, tmp_path/'digits_101.zip', 101, agreed=True)
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        plan = merge_digits(shared, tmp_path/'all')
    assert len(plan.photos) == 13 and not [name for name in plan.skipped if name.endswith('.jpg')]
    check_bare(files(tmp_path/'all'))
    check_pixels(files(tmp_path/'all'), pictures)


def test_a_damaged_photo_is_named(tmp_path):
    good, path = picture(1), tmp_path/'mine'/'train'/'one'
    path.mkdir(parents=True)
    (path/'a.jpg').write_bytes(full_jpeg(good))
    rows = read_manifest(tmp_path/'mine').to_dict('records')
    write_rows(tmp_path/'mine', rows)
    (path/'a.jpg').write_bytes(saved(good, 'PNG')[:200])
    with pytest.raises(ValueError, match='a.jpg cannot be shared: is damaged'): share_digits(tmp_path/'mine', tmp_path/'out', 5, agreed=True)
    assert os.listdir(tmp_path/'out') == []

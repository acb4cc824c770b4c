"Build `digits_kit` from the values in settings.ini, which nbdev reads as well."
from configparser import ConfigParser
from pathlib import Path

from setuptools import find_packages, setup

here = Path(__file__).parent
config = ConfigParser(delimiters=['='], interpolation=None)
config.read(here/'settings.ini', encoding='utf-8')
cfg = config['DEFAULT']

setup(
    name=cfg['lib_name'],
    version=cfg['version'],
    description=cfg['description'],
    long_description=(here/'README.md').read_text(encoding='utf-8'),
    long_description_content_type='text/markdown',
    keywords=cfg['keywords'],
    author=cfg['author'],
    author_email=cfg['author_email'],
    url=cfg['git_url'],
    license='Apache-2.0',
    classifiers=['Development Status :: 3 - Alpha', 'Intended Audience :: Education', 'Intended Audience :: Science/Research',
                 *(f'Programming Language :: Python :: {version}' for version in ('3', '3.11', '3.12', '3.13'))],  # tried
    packages=find_packages(include=['digits_kit', 'digits_kit.*']),
    package_data={'digits_kit': ['static/*.js', 'static/*.css', 'weights/*.safetensors', 'archs.csv', 'rubric.toml']},
    python_requires='>=' + cfg['min_python'],
    install_requires=cfg['requirements'].split(),
    extras_require={'dev': cfg['dev_requirements'].split()},
    entry_points={'console_scripts': cfg['console_scripts'].split(), 'nbdev': ['digits_kit=digits_kit._modidx:d']},
)

"""`save FOLDER` trains both heads and saves them; `load FOLDER` loads them without a pickle and compares.

In both, every path is of a flavour that only exists in that process, as a `WindowsPath` does for a Mac.
"""
import json
import os
import pathlib
import pickle
import sys

Here = type(pathlib.Path())


class ForeignPath(Here):
    def __reduce__(self): raise AssertionError('a path was pickled')


vars(sys.modules[pathlib.Path.__module__])[Here.__name__] = ForeignPath
assert type(pathlib.Path('a')/'b') is ForeignPath

import numpy as np
import torch

from digits_kit.data import get_dls
from digits_kit.models import open_model
from digits_kit.sample import draw_folder
from digits_kit.training import fine_tune, get_learner

HEADS = ['cam', 'fastai']

xb = torch.linspace(-2, 2, 4*3*64*64).view(4, 3, 64, 64).cos()


def probabilities(model):
    with torch.no_grad(): return model.eval()(xb).double().softmax(1).tolist()


def save_all(folder):
    os.environ |= {'DIGITS_RUNS': str(folder/'runs'), 'DIGITS_CACHE': str(folder/'cache')}
    draw_folder(folder/'photos', n_train=4, n_valid=4, labels=['one', 'two', 'three'], size=(64, 64))
    for head in HEADS:
        learn = get_learner(get_dls(folder/'photos', size=64, bs=4), head=head, pretrained=False)
        run = fine_tune(learn, 1, name=head)
        expected = {'file': f'runs/{run.name}/model.safetensors', 'meta': learn.model.meta,
                    'probabilities': probabilities(learn.model.cpu())}
        (folder/f'{head}.json').write_text(json.dumps(expected), encoding='utf-8')


def load_all(folder):
    def refuse(*args, **kwargs): raise AssertionError('a pickle was opened')
    for name in ['load', 'loads', 'Unpickler', '_Unpickler']: setattr(pickle, name, refuse)
    torch.load = refuse
    for head in HEADS:
        expected = json.loads((folder/f'{head}.json').read_text(encoding='utf-8'))
        model = open_model(folder/expected['file'])
        assert model.meta == expected['meta'], model.meta
        print(f'{head} {np.abs(np.subtract(probabilities(model), expected["probabilities"])).max():.1e}')


if __name__ == '__main__':
    {'save': save_all, 'load': load_all}[sys.argv[1]](pathlib.Path(sys.argv[2]))

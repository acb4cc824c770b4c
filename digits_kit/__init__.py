__version__ = "0.2.0"

import os

# torch's threads wait for each other by spinning. On Linux they spin so long that, beside other busy programs (a second
# notebook, a video call), a training step of 0.1 s can take several. 10,000 turns are enough on an idle computer and
# harmless on a busy one. Must be set before torch is loaded; elsewhere than with GNU OpenMP it has no effect.
os.environ.setdefault('GOMP_SPINCOUNT', '10000')

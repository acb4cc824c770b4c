__version__ = "0.1.0"

import os

# Threads of OpenMP wait by spinning. Beside a browser, or a second notebook, that makes training several times
# slower than one thread alone; waiting passively costs nothing. It must be said before torch is loaded.
os.environ.setdefault('OMP_WAIT_POLICY', 'PASSIVE')

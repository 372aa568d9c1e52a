"""``python -m soapkrr.cli``."""

import sys

from soapkrr.cli import main

sys.exit(main())

"""``python -m soapkrr.cli``."""

import sys

from soapkrr.cli.entry import main

sys.exit(main())

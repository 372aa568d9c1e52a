"""``python -m soapkrr.cli``."""

import sys

from soapkrr.cli.main import main

sys.exit(main())

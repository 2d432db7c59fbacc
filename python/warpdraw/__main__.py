"""`python -m warpdraw` is the `warpdraw` command."""

import sys

from .cli.main import main

sys.exit(main())

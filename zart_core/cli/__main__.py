"""`python -m zart_core.cli`: the `zart` command where it is not on the PATH."""

import sys

from zart_core.cli.app import main

sys.exit(main())

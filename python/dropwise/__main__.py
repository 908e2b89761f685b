"""``python -m dropwise``: see `dropwise.cli`."""

from dropwise.cli import main

raise SystemExit(main())

"""Fetches a public data set, checks its size and sha256, and writes DIR/NAME.npz for `--config.data.data_dir=DIR`.

Examples:
    python scripts/prepare_data.py mnist --data_dir=~/data
    python scripts/prepare_data.py --list
"""

import argparse
import sys
from pathlib import Path

from genflow.data.prepare import listing, prepare
from genflow.data.sources import data_dirs
from genflow.errors import UserError


def main() -> None:
    """Parses the command line and runs it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", nargs="?", help="the data set, see --list")
    parser.add_argument("--data_dir", default="", help="where NAME.npz goes ($GENFLOW_DATA or ~/tensorflow_datasets)")
    parser.add_argument("--raw_dir", type=Path, help="where original files are or go (DATA_DIR/downloads/NAME)")
    parser.add_argument("--list", action="store_true", help="print the names with the size of their download")
    arguments = parser.parse_args()
    if arguments.list or not arguments.name:
        print(listing())
        return
    data_dir = data_dirs(arguments.data_dir)[0]
    raw_dir = arguments.raw_dir and arguments.raw_dir.expanduser()
    path = prepare(arguments.name, data_dir, raw_dir)
    print(f"{path}\nuse it with --config.data.name={arguments.name} --config.data.data_dir={data_dir}")


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)

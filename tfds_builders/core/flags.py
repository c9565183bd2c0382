"""The flags of a build that `tfds build` does not have."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from multimed_jax.types import UserError
from tfds_builders.core import beam
from tfds_builders.core.build_options import BuildOptions


class Parser(argparse.ArgumentParser):
    """One sentence in place of the usage."""

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}; --help lists the accepted flags")


def read_options(argv: Sequence[str]) -> tuple[BuildOptions, list[str]]:
    """The options that the flags say, and the other arguments.

    Raises:
        UserError: a flag without its value; as `beam.pipeline_options`.
    """
    parser = Parser("tfds_builders build", add_help=False, allow_abbrev=False)
    parser.add_argument(
        "--hash_key",
        type=Path,
        metavar="FILE",
        help="key of the hashes that stand for people's ids; made where it is missing",
    )
    parser.add_argument(
        "--accept_burned_in",
        action="store_true",
        help="take DICOM images whose header says that text is drawn into the pixels",
    )
    parser.add_argument(
        "--accept_licence",
        action="append",
        default=[],
        metavar="NAME",
        help="a restricted source whose terms you have read and keep to; may be repeated",
    )
    parser.add_argument(
        "--beam_runner",
        metavar="NAME",
        help="build as a Beam pipeline on this runner, such as DirectRunner",
    )
    parser.add_argument("--beam_pipeline_options", help=argparse.SUPPRESS)  # of `tfds build`
    if {"-h", "--help"} & set(argv):
        parser.print_help()
    own, rest = parser.parse_known_args(argv)
    pipeline = beam.pipeline_options(own.beam_runner, own.beam_pipeline_options)
    if pipeline is not None:
        rest = [*rest, f"--beam_pipeline_options={pipeline}"]
    options = BuildOptions(
        hash_key_file=own.hash_key,
        accept_burned_in=own.accept_burned_in,
        accepted_licences=frozenset(own.accept_licence),
    )
    return options, rest

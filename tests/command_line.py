"""The command line, run in this process."""

from soapkrr import cli


def outcome(capsys, *arguments):
    """(exit code, standard output, standard error) of a command line."""
    capsys.readouterr()
    try:
        code = cli.main([str(a) for a in arguments])
    except SystemExit as exit:
        code = exit.code
    return code, *capsys.readouterr()

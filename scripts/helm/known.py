"""Is every setting and argument that manifests give the program known to it?

`check(PIE, manifests)` collects PIE_* variables and `pie …` command lines of containers and hooks, and asks `pie help COMMAND`.
"""

import re
import subprocess


class Program:
    """What one build of `pie` knows, by its help."""

    def __init__(self, path):
        self.path, self.pages = path, {}

    def help(self, words):
        if words not in self.pages:
            run = subprocess.run([self.path, *words, "--help"], capture_output=True, text=True)
            self.pages[words] = run.stdout if run.returncode == 0 else None
        return self.pages[words]

    def variables(self, words):
        """Of the command and of those above it."""
        pages = [self.help(words[:count]) or "" for count in range(len(words) + 1)]
        return set(re.findall(r"\[env: (PIE_[A-Z_]+)=", "".join(pages)))

    def flags(self, words):
        return set(re.findall(r"(--[a-z-]+)", self.help(words) or ""))


def command_words(arguments):
    """`ctl health --wait 60s` is the command (ctl, health) with the rest as arguments."""
    count = 2 if arguments[:1] == ["ctl"] else 1
    return tuple(arguments[:count]), arguments[count:]


def unknown(program, arguments, variables, hooks=()):
    """Complaints about one container: its arguments, its environment, and the command lines of its hooks, which inherit it."""
    complaints, known = [], set()
    for line in [arguments, *hooks]:
        words, rest = command_words(line)
        known |= program.variables(words[:1])
        page = program.help(words)
        if page is None:
            complaints.append(f"`pie {' '.join(words)}` is no command")
            continue
        known |= program.variables(words)
        flags = {argument.split("=")[0] for argument in rest if argument.startswith("--")}
        complaints += [f"`pie {' '.join(words)}` has no {flag}" for flag in sorted(flags - program.flags(words))]
        named = rest[:1] and not rest[0].startswith("--")
        if words == ("ctl", "drain") and not named and "PIE_GROUP" not in program.variables(words):
            complaints.append("`pie ctl drain` needs a group")
    asked = {name for name in variables if name.startswith("PIE_")}
    complaints += [f"`pie {arguments[0]}` does not know {name}" for name in sorted(asked - known)]
    return complaints

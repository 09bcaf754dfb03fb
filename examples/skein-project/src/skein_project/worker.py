"""What runs in the containers: `python -m skein_project.worker WORDS…`."""

import sys


def main(words):
    print("counted", {word: words.count(word) for word in sorted(set(words))})


if __name__ == "__main__":
    main(sys.argv[1:])

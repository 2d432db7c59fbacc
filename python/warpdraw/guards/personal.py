"""Personal data: e-mail addresses, and numbers that have the form, and the check digits, of those of people."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

from .checks import Check, Finding

_EMAIL = re.compile(r"(?<![\w.+-])[\w.+-]+@[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)+")
_IBAN = re.compile(r"(?<!\w)[A-Z]{2}[0-9]{2}(?: ?[A-Z0-9]){11,30}(?!\w)")
_CARD = re.compile(r"(?<![\w-])[0-9](?:[ -]?[0-9]){12,18}(?![\w-])")
_AADHAAR = re.compile(r"(?<![\w-])[2-9][0-9]{3}([ -]?)[0-9]{4}\1[0-9]{4}(?![\w-])")
_DATE, _DECIMAL = r"[0-9]{4}-[0-9]{2}-[0-9]{2}", r"[0-9]+\.[0-9]+(?![.\w-])"
_PHONE = re.compile(rf"(?<![\w.-])(?!{_DATE}|{_DECIMAL})(?:\+|00|\()?[0-9](?:[ ().-]{{0,2}}[0-9]){{8,14}}(?![\w-])")


def personal_data(*kinds: str) -> Check:
    """A text without personal data of these kinds, or of all: "email", "iban", "card", "aadhaar", "phone".

    IBANs have to have the right check digits (ISO 7064), numbers of cards those of Luhn, Aadhaar numbers those of
    Verhoeff; a phone number is any run of 9 to 15 digits that may be one
    (and is no decimal number and no date). What has another form (names, addresses,
    numbers in words) is not found, and a number that only looks like one is: this helps, and promises nothing.

    >>> personal_data().find("Write to a.b@example.org or call +44 20 7946 0958.")
    [Finding(what='email', begin=9, end=24), Finding(what='phone', begin=33, end=49)]
    """
    unknown = [kind for kind in kinds if kind not in _FINDERS]
    if unknown:
        raise ValueError(f"personal_data: expected some of {', '.join(_FINDERS)}, got {unknown[0]!r}")

    def find(text: str) -> list[Finding]:
        findings: list[Finding] = []
        for kind, spans in _FINDERS.items():
            if kinds and kind not in kinds:
                continue
            for begin, end in spans(text):
                # A number is what its check digits say; only what is nothing else is a phone number.
                if all(end <= other.begin or begin >= other.end for other in findings):  # type: ignore[operator]
                    findings.append(Finding(kind, begin, end))
        return findings

    return Check("personal_data", find)


def luhn(digits: str) -> bool:
    """Whether the last digit is the check digit of the others (ISO/IEC 7812-1).

    >>> luhn("4111111111111111"), luhn("4111111111111112")
    (True, False)
    """
    # Every second digit from the right counts twice, by the sum of its digits.
    doubled = (int(digit) * (1 + at % 2) for at, digit in enumerate(reversed(digits)))
    return sum(value // 10 + value % 10 for value in doubled) % 10 == 0


def verhoeff(digits: str) -> bool:
    """Whether the last digit is the check digit of the others (Verhoeff 1969).

    >>> verhoeff("2363"), verhoeff("2364")
    (True, False)
    """
    check = 0
    for at, digit in enumerate(reversed(digits)):
        value = int(digit)
        for _ in range(at % 8):
            value = _PERMUTATION[value]
        check = _product(check, value)
    return check == 0


def iban(text: str) -> bool:
    """Whether the check digits of an IBAN without blanks are right (ISO 13616).

    >>> iban("GB82WEST12345698765432"), iban("GB82WEST12345698765433")
    (True, False)
    """
    turned = text[4:] + text[:4]
    return int("".join(str(int(letter, 36)) for letter in turned)) % 97 == 1


# Verhoeff's permutation, and the product of the group of the symmetries of a pentagon.
_PERMUTATION = (1, 5, 7, 6, 2, 8, 3, 0, 9, 4)


def _product(one: int, other: int) -> int:
    turned = one - other if one >= 5 else one + other
    return turned % 5 + 5 * ((one >= 5) != (other >= 5))


def _spans(pattern: re.Pattern[str], valid: Callable[[str], bool] = bool) -> Callable[[str], Iterable[tuple[int, int]]]:
    def find(text: str) -> Iterable[tuple[int, int]]:
        return [match.span() for match in pattern.finditer(text) if valid(re.sub("[ -]", "", match.group()))]

    return find


def _ibans(text: str) -> Iterable[tuple[int, int]]:
    for match in _IBAN.finditer(text):
        # Words in capitals may follow: an IBAN ends where one of its groups does.
        ends = [match.end(), *(match.start() + at for at, letter in enumerate(match.group()) if letter == " ")]
        for end in sorted(ends, reverse=True):
            if 15 <= len(joined := text[match.start() : end].replace(" ", "")) <= 34 and iban(joined):
                yield match.start(), end
                break


_FINDERS: dict[str, Callable[[str], Iterable[tuple[int, int]]]] = {
    "email": _spans(_EMAIL),
    "iban": _ibans,
    "card": _spans(_CARD, luhn),
    "aadhaar": _spans(_AADHAAR, verhoeff),
    "phone": _spans(_PHONE),
}

"""Language of a text, where that is certain: by its script, and for Latin script by its most frequent words.

Related languages count as one (Danish, Norwegian and Swedish; Czech and Slovak; all that write Cyrillic). Short texts
and mixed ones have no language here.
"""

from __future__ import annotations

import re

SAMPLE = 120
"""Characters of a text that are read: its start and its end."""
LEAST_LETTERS = 24
"""Bytes of letters in another script than Latin; about 24 Cyrillic letters or 8 signs of Chinese have twice as many."""
LEAST_SHARE = 0.7
"""Share of a script among all letters, in bytes."""
LEAST_WORDS, LEAST_OF_WORDS = 4, 0.15
"""Least different frequent words of a text, and their least share of all its words."""
LEAST_SCORE, LEAD = 2.0, 2.0
"""Least score of a language, and how often it must be the next one's. A word of n languages counts 1/n for each."""

WORDS = {
    "English": (
        "the of and to is that it you for with are this be your have from or as was can not they will by "
        "at which has i an in on all if when how do also then there we their more than but so what would "
        "should about"
    ),
    "Spanish": (
        "el los las una del que es por para con más como pero sus este esta puede son muy también lo su "
        "al ser hay y no un en de se la si desde sin cada todos entre sobre cuando donde tu está o"
    ),
    "French": (
        "le les des une est et que pour dans qui sur avec pas vous nous plus sont ce cette il elle du au "
        "par ou votre je un de la en à si ne se être aux peut sans tout tous vers avez c'est d'un d'une"
    ),
    "German": (
        "der die das und ist nicht ein eine einen mit für auf den dem von zu sich auch es sie ich wir "
        "kann oder sind wird bei des im als aus nach wenn alle einer eines zum zur werden aber so um man "
        "ihre"
    ),
    "Portuguese": (
        "os uma do da em que não para com mais por dos das ser pode são você também seu sua ao é ou isso "
        "como o a de um no na e se as à às nos nas pelo pela sem todos está"
    ),
    "Catalan": (
        "els les del que és per amb una un i no aquest aquesta més ser pot o de la el en als tots si sense des cada"
    ),
    "Italian": (
        "il gli che di una per con non sono del della è dei delle più anche questo questa può nel alla ma "
        "come un la le i e si in da lo al dal sul tutti tutte nella essere o ed dalla se"
    ),
    "Dutch": (
        "het een van en is dat niet voor met zijn op aan ook je te wordt kan deze door bij naar maar als "
        "worden dit de in of alle uit om over er zonder tot heeft kunnen meer u wel"
    ),
    "Scandinavian": (
        "och att det som på är för med en den inte av till har kan du jag og er ikke til af jeg de om ett "
        "vi et i eller fra från alla alle ved vid ska skal der denne dette denna detta"
    ),
    "Polish": (
        "nie się jest na że do jak dla oraz ale lub są być przez może od jego które który to czy tego w z "
        "i o po jako za tylko jeśli jej ich tym"
    ),
    "Turkish": (
        "bir ve bu için ile olarak da de çok olan daha gibi veya en ne ise değil kadar sonra var her tüm "
        "göre eğer hem şu olduğu"
    ),
    "Indonesian": (
        "yang dan di untuk dengan ini dari adalah tidak itu dalam pada atau dapat anda akan saya ke bisa "
        "juga sebuah semua oleh jika secara tanpa sebagai suatu"
    ),
    "Vietnamese": (
        "của và là không có được cho các một những trong người với để này bạn khi đã thể tôi về từ tất cả "
        "trên nếu vào hoặc ra"
    ),
    "Romanian": (
        "și este în nu pentru cu care din mai sunt sau un pe poate fi această acest prin ca la să de o "
        "toate dacă într-un unui unei fără"
    ),
    "Hungarian": "a az és hogy nem egy is meg van ez de vagy csak mint azt ha lehet kell volt összes minden amely",
    "Finnish": "ja on ei se että tai voi ovat kun mutta myös hän joka sen olla jos mitä ole sekä kaikki ilman",
    "Czech": (
        "je na se že jsou jako pro ale nebo které být může také není podle by co ako ktoré môže sú sa v a "
        "z s do všechny všetky ze k pokud"
    ),
}
"""Frequent words; those of several languages count for each of them."""
LANGUAGES_OF: dict[str, list[str]] = {}
for _language, _words in WORDS.items():
    for _word in _words.split():
        LANGUAGES_OF.setdefault(_word, []).append(_language)
ALL_WORDS = frozenset(LANGUAGES_OF)

SCRIPTS: dict[str, tuple[bytes, ...]] = {
    "Cyrillic": (b"\xd0", b"\xd1", b"\xd2"),
    "Greek": (b"\xce", b"\xcf"),
    "Hebrew": (b"\xd7",),
    "Arabic": (b"\xd8", b"\xd9", b"\xda", b"\xdb"),
    "Devanagari": (b"\xe0\xa4", b"\xe0\xa5"),
    "Bengali": (b"\xe0\xa6", b"\xe0\xa7"),
    "Tamil": (b"\xe0\xae", b"\xe0\xaf"),
    "Thai": (b"\xe0\xb8", b"\xe0\xb9"),
    "Japanese": (b"\xe3\x81", b"\xe3\x82", b"\xe3\x83"),
    "Chinese": (b"\xe4", b"\xe5", b"\xe6", b"\xe7", b"\xe8", b"\xe9"),
    "Korean": (b"\xea\xb0", b"\xea\xb1", b"\xea\xb2", b"\xea\xb3", b"\xeb", b"\xec", b"\xed"),
}
"""First bytes of the letters in UTF-8."""
NO_LETTERS = bytes(code for code in range(256) if not (chr(code).isalpha() and code < 128) and not 0xC3 <= code <= 0xC6)
MOSTLY_LATIN = 0.7
"""Share of Latin letters among all bytes of a text that has no other script worth counting."""
LEAST_KANA = 0.1
"""Share of kana in a Japanese text."""
CODE = re.compile(
    r"```|^\s*(?:def|class|import|from|function|const|var|let|public|#include|SELECT)\b|[;{]\s*$|</\w", re.MULTILINE
)

NAMED = re.compile(
    r"translat|langu|idioma|lengua|langue|lingua|sprach|język|bahasa|\bdil\b|язык|语言|語言|言語|언어|لغة|भाषा"
    r"|traduc|traduz|tradui|tradur|übersetz|vertaal|översätt|oversæt|oversett|tłumacz|çevir|terjemah|dịch|перев|перекл|翻译|翻譯|翻訳|번역"
    r"|ترجم|अनुवाद|english|spanish|french|german|portugu|italian|dutch|swedish|danish|norwegian|polish|turkish|indonesian"
    r"|vietnamese|romanian|hungarian|finnish|czech|russian|ukrainian|chinese|mandarin|japanese|korean|arabic|hebrew|hindi|bengali"
    r"|tamil|thai|greek|latin\b|swahili|farsi|persian|urdu|tagalog|español|castellan|inglés|français|anglais|deutsch|englisch"
    r"|inglês|italiano|inglese|nederlands|engels|svenska|dansk|norsk|engelska|polsk|angielsk|türkçe|ingilizce|inggris|tiếng|român"
    r"|engleză|magyar|angol|suomeksi|englanni|česky|anglick|русск|англи|україн|中文|英文|英语|英語|日本語|한국어|영어|العربية|الإنجليزية"
    r"|हिन्दी|हिंदी|अंग्रेज|\bin (?:\w+(?:ese|ish|ian))\b",
    re.IGNORECASE,
)
"""Words of a prompt that may ask for another language: it names one, or a translation."""


def is_other_language(asked: str, answer: str, prompt: str) -> bool:
    """Whether an answer is in another language than the question, and the prompt names none."""
    if is_plain_english(answer) and is_plain_english(asked):
        return False
    of_answer = language(answer)
    if not of_answer or (of_answer == "English" and is_plain_english(asked)):
        return False
    of_question = language(asked)
    if not of_question or of_question == of_answer:
        return False
    return not (NAMED.search(prompt) or CODE.search(answer) or CODE.search(asked))


def is_plain_english(text: str) -> bool:
    """Whether a text starts with a word that settles it for nearly all English texts."""
    start = text[:SAMPLE]
    return " the " in start or " you " in start or " and " in start or " I " in start


def language(text: str) -> str:
    """Language of a text; empty unless it is certain."""
    sample = text if len(text) <= SAMPLE else f"{text[: SAMPLE // 2]} {text[-SAMPLE // 2 :]}"
    if not sample.isascii():
        raw = sample.encode("utf-8", "surrogatepass")
        latin = len(raw.translate(None, NO_LETTERS))
        if latin < MOSTLY_LATIN * len(raw) and (other := _by_script(raw, latin)):
            return other if other != "mixed" else ""
    return _by_words(sample.lower().split())


def _by_script(raw: bytes, latin: int) -> str:
    """Script of a text that has few Latin letters; `mixed` if no script has most of it; empty for Latin."""
    counts = {script: sum(map(raw.count, leads)) for script, leads in SCRIPTS.items()}
    total = sum(counts.values())
    if total * 8 < latin:
        return ""
    if counts["Japanese"] >= LEAST_KANA * (counts["Japanese"] + counts["Chinese"]):
        counts["Japanese"] += counts.pop("Chinese")
    script = max(counts, key=counts.__getitem__)
    width = 3 if SCRIPTS[script][0][0] >= 0xE0 else 2
    is_clear = counts[script] >= LEAST_SHARE * (total + latin) and counts[script] * width >= LEAST_LETTERS
    return script if is_clear else "mixed"


def _by_words(words: list[str]) -> str:
    known = ALL_WORDS.intersection(words)
    if len(known) < max(LEAST_WORDS, LEAST_OF_WORDS * len(words)):
        return ""
    scores = dict.fromkeys(WORDS, 0.0)
    for word in known:
        languages = LANGUAGES_OF[word]
        for language in languages:
            scores[language] += 1 / len(languages)
    second, best = sorted(scores.values())[-2:]
    return max(scores, key=scores.__getitem__) if best >= max(LEAST_SCORE, LEAD * second) else ""

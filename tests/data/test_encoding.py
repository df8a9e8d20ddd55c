"""Mojibake: right text in many languages and sciences stays as it is, text decoded wrongly is restored."""

from __future__ import annotations

import pytest

from kto_cli.data.audit.encoding import ENCODINGS, restore
from kto_cli.data.audit.found import Found
from kto_cli.data.audit.text_checks import damage, fix

RIGHT = [
    "About 160 Å³. It measures 12 Å². 1.09 Å. A contact area of 31 Å², 5.2 kcal/(mol·Å²), Å–Å, 2.5Å².",
    "Apply Â² twice: ⟨ψ|Â²|ψ⟩, ‘â†’ creates, Â†Â counts, Î² = Î, Ô² too. The letter Å’s ring; two Ä’s and Ö’s.",
    "√π, 2√π, x√π, σ√µ, √∑xᵢ², √Ω, a√±b, n√∞; 3 × 10⁻⁴; ½ + ¼; 25 °C ± 2 °C; 10 µm²; 5‰; ∮ E·dl; Ø² = 4 mm²",
    "« Le café », dit-il, « déjà », « voilà… ». Où ? À Noël ; l’été – « l’opérateur Â : »",
    "“café—” he said. ‘He asked “why the café?”’ The cliché’s risqué… naïve” – résumé™",
    "IRMÃ, AMANHÃ… MAÇÃ” e “MANHô? IRMÃ® SÃO PAULO–LÃ— não, coração, “irmã”",
    "KŘÍŽ, PÍŠE, VÝŠKA, ÚŽAS, PŘÍŠTÍ, ŽÍŽALA, ÓŽ; „Ä“ und „Ö“, die „Ü“s; GRÖẞE",
    "HÂLÂ… KÂĞIT” ROMÂNIA» TÂM NHÂN» CHÂTEAU… “GÂTEAU” BÂ®",
    "ÅRHUS – Å… på Å”. BLÅ” GRÅ». Én så’ø",
    "Софії, енергії, мрії, лінії, її; Революції; ЦІЇ; «Ії»; РІК, СІЛЬ; Ёлка; РЁВ; Њ Ђ в Ђакон",
    "Καλημέρα· τι κάνεις; «Αθήνα» ΐ ΰ; η τιμή είναι 5 €",
    "שלום “עולם”; مرحبا «عالم»؛ ፊደል; हिन्दी; ไทย; 日本語「はい」; 中文“引号”；한국어’",
    "┌─┐ │ ═╗ ├─┤ └─┘ ╔═╗║ ░▒▓ ┬┐ ─┤ tree: ├── src └── École",
    "Þór, ð’s sound, “ð”… Æsir, ýmis; Zażółć gęślą jaźń; Őű; ığdır; Ľúbiť; Č’s; Ťažko",
    "Tiếng Việt: ẨN, “Â”, «Ã», “Ê…”; Việt Nam® – đúng",
    "10 €, 5 £, 7 ¥, ¿qué?, ¡olé!, ª º § ¶ † ‡ • © 2024 ® ™ … – — ‘’ “” „“",
    "Why do I see â€™ instead of ’? It is mojibake: UTF-8 read as Windows-1252, as Ã© for é.",
    "👍🏽 👩‍👩‍👧‍👦 ❤️ 🇫🇷 ✓ ✗ ★ → ⇒ ≠ ≤ ∞ ℃ Ω µ",
    "Ų, ų, Ś, ś: namų, ką; Ēriks; Ķēniņš; ŠĶŪNIS; Ẽ; Ŷ",
    "def f(): return 'Ã'  # É, Ñ: “ñ”",
    "The letter Å—the angstrom—is not Ä—the umlaut—nor Ã—the tilde; Å–the sign; “café”—É”; »Ä« and »Ã«; Å…and so on",
    "ÉCOLE®, CAFÉ™, NOËL…, ÇA», MÜNCHEN“, ŒUVRE; ÎLE–DE–FRANCE; ÆRØ® BJÖRK’s; ØL’s; 100 µg·m⁻³, 5 kΩ, ≤ 3σ, ΔT",
    "E = ħω, ∂²u/∂x², ⟨x|y⟩, Ĥψ = Eψ, ŷ = x̂, Å⁻¹, °C/W, ‰, ①②③, ½×¾÷⅓, ¬p ∨ q, ¥5,000, ¢99, §3 ¶2, №5, ℃, ﬁne",
]
CORRECT = [
    "It’s “quoted” – and so on… 10 €",
    "Der Bär läuft über die Straße nach Österreich, ÜBER und Ähnliches",
    "Pokémon et Françoise à l’été, déjà élève, Noël, naïve, garçon",
    "¿Qué pasa mañana, señor? ¡Óscar también! Información",
    "Não há coração, João; três irmãos",
    "Съешь же ещё этих мягких французских булок",
    "Привет, как дела? Всё хорошо.",
    "Καλημέρα, τι κάνετε σήμερα;",
    "שלום עולם, מה שלומך",
    "مرحبا بالعالم كيف حالك",
    "你好，世界！今天天气怎么样？",
    "こんにちは、世界。",
    "안녕하세요 세계",
    "नमस्ते दुनिया",
    "Zażółć gęślą jaźń, byłą źródło",
    "Příliš žluťoučký kůň",
    "Smile 😊 and 👍🏽, stars ★★, ✓ done → next ≤ 5",
    "E = mc², 25°C, ±2 µm, 5 × 4, ½ cup, £5 and ©2024 — they’re fine",
]


@pytest.mark.parametrize("text", RIGHT)
def test_right_text_stays_as_it_is(text):
    assert restore(text) == text
    assert not damage(text) & Found.MOJIBAKE
    assert fix(text) is text


@pytest.mark.parametrize("text", RIGHT)
def test_each_word_of_it_too(text):
    """A word alone has less around it that could tell."""
    for part in () if "mojibake" in text else text.split():
        assert restore(part) == part
        assert restore(f"and {part} then") == f"and {part} then"


def sloppy(text: str, encoding: str) -> str:
    """The UTF-8 bytes of a text in another encoding; bytes that it does not define as control characters."""
    return "".join(
        bytes([byte]).decode(encoding, "ignore") or chr(byte) if byte > 127 else chr(byte) for byte in text.encode()
    )


@pytest.mark.parametrize("encoding", ["cp1252", "latin-1"])
@pytest.mark.parametrize("text", CORRECT)
def test_wrongly_decoded_text_is_restored(text, encoding):
    broken = sloppy(text, encoding)
    assert broken != text
    assert damage(broken) & Found.MOJIBAKE
    assert fix(broken) == text
    assert fix(sloppy(broken, encoding)) == text  # twice


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_in_every_encoding(encoding):
    for text in ("It’s “quoted” – and so on…", "Pokémon’s été, garçon – déjà vu"):
        assert fix(sloppy(text, encoding)) == text


def test_it_is_restored_for_most_words_alone():
    words = [word for text in CORRECT for word in text.split() if not word.isascii()]
    restored = [restore(sloppy(word, "cp1252")) == word for word in words]
    assert sum(restored) / len(restored) >= 0.9


@pytest.mark.parametrize(
    ("broken", "text"),
    [
        ("We\x92ll be closed.", "We’ll be closed."),
        ("She said \x93hello\x94 \x96 twice\x85", "She said “hello” – twice…"),
        ("10 \x80.", "10 €."),
        ("a\x81b", "ab"),
        (
            "It isÂ\xa0so; 20Â°C, 5Â\xa0m, mÂ², Â£5, Â©2024, Â½ cup, Â¿QuÃ©?",
            "It is\xa0so; 20°C, 5\xa0m, m², £5, ©2024, ½ cup, ¿Qué?",
        ),
        ("DonÂ’t", "Don’t"),
        ("â€œHi,â€ she said. Itâ€™s 5 Å³", "“Hi,” she said. It’s 5 Å³"),
        ("3 Ã— 4 and 5Ã—5", "3 × 4 and 5×5"),
        ("Ãœber, Ã‰cole, Ã–l, Ã…ngstrÃ¶m, Ã“scar", "Über, École, Öl, Ångström, Óscar"),
        ("ï»¿Hello cafÃ©", "Hello café"),
        ("РџСЂРёРІРµС‚, РєР°Рє РґРµР»Р°", "Привет, как дела"),
        ("The price is â‚¬5 â†’ ok â‰¤ 7", "The price is €5 → ok ≤ 7"),
    ],
)
def test_known_damage(broken, text):
    assert fix(broken) == text
    assert damage(broken)
    assert damage(text) == 0


def test_curly_quotes_and_dashes_are_no_damage_in_any_order():
    """What lets most texts skip the search for damage: no pair of these signs is mojibake of any encoding."""
    signs = "–—‘’“”…"
    for text in (f"{one}{two} and {three}" for one in signs for two in signs for three in signs):
        assert restore(text) == text
        assert damage(text) == 0
    assert damage("It’s fine – Ã©tÃ©") == Found.MOJIBAKE

"""What a row's own text tells: each finding on what it is for, and silence on good text."""

from __future__ import annotations

import csv
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from shared import shared

from kto_cli.data.audit.found import ABOUT, Found
from kto_cli.data.audit.refusals import LONGEST, only_refuses
from kto_cli.data.audit.repetition import repeats
from kto_cli.data.audit.text_checks import damage, fix, look, names
from kto_cli.data.texts import joined


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def bot(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


CLEAN = [
    "Plain ASCII, with tabs\tand\nline\r\nends.",
    "“Curly quotes”, it’s an em—dash, an ellipsis…",
    "Voilà: déjà vu, Ça va à Paris? L’été, où ? « Bien sûr »",
    "Größe, Übermut, Straße; naïve café – 50 €, 20 £, 5°C ± 2 µm",
    "Ærø, Ångström, señor, mañana, ¿qué?, ¡hola!, João não está",
    "Zażółć gęślą jaźń. Příliš žluťoučký kůň. Ő, Ű, ş, ğ, İ",
    "Съешь же ещё этих мягких французских булок, да выпей чаю. «Да»",
    "Ξεσκεπάζω την ψυχοφθόρα βδελυγμία.",
    "שלום עולם. مرحبا بالعالم، كيف حالك؟",
    "नमस्ते दुनिया, आप कैसे हैं? สวัสดีชาวโลก",
    "你好，世界！今天天气怎么样？ こんにちは、世界。 안녕하세요 세계",
    "👍🏽 👩‍👩‍👧‍👦 🇫🇷 ❤️ 🤖🎉",
    "∀x∈ℝ: ⌈x⌉ = −⌊−x⌋, α ∧ ¬β = ¬(¬α ∨ β), ∑ᵢ xᵢ² ≤ ∞",
    "def f(x):\n    return x ** 2  # naïve, “quoted”\n<div class='a'>Ünïcödé</div>",
    "┌──┐\n│ab│\n└──┘ ░▒▓ ► ◄ ✓ ✗ ★",
    "Tiếng Việt có dấu: Đường, được, những, người",
]


@pytest.mark.parametrize("text", CLEAN)
def test_good_text_is_left_alone(text):
    assert damage(text) == 0
    assert fix(text) is text


@given(st.lists(st.sampled_from(CLEAN), min_size=1, max_size=4), st.sampled_from(["\n", " ", "\n\n"]))
@settings(max_examples=60, deadline=None)
def test_good_texts_together_are_left_alone(parts, between):
    text = between.join(parts)
    assert fix(text) is text


@given(st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=200))
@settings(max_examples=60, deadline=None)
def test_ascii_is_never_changed(text):
    assert fix(text) is text


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=80))
@settings(max_examples=200, deadline=None)
def test_fixing_leaves_no_control_characters_and_undamaged_text_as_it_is(text):
    fixed = fix(text)
    kept = "\t\n\r"
    assert not [c for c in fixed if unicodedata.category(c) == "Cc" and c not in kept]
    if not damage(text):
        assert fixed == text


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("It’s “quoted” – and so on…", "mac_roman"),
        ("It’s – and so on…", "cp1252"),
        ("Der Bär läuft über die Straße", "cp1252"),
        ("Der Bär läuft über die Straße", "mac_roman"),
        ("Der Bär läuft über die Straße", "latin-1"),
        ("Pokémon et Françoise à l’été", "mac_roman"),
        ("Съешь ещё булок", "latin-1"),
    ],
)
def test_mojibake_is_found_and_restored(text, wrong):
    spoiled = text.encode().decode(wrong)
    assert damage(spoiled) & Found.MOJIBAKE
    assert fix(spoiled) == text
    assert look(spoiled, "fine") & Found.MOJIBAKE
    assert look((user("hi"), bot(spoiled), user("and?")), "fine") & Found.MOJIBAKE


def test_a_letter_whose_second_byte_is_a_space_by_now():
    assert fix("Un steak Ã la carte, voilÃ tout") == "Un steak à la carte, voilà tout"
    assert fix("SÃO PAULO Ã noite") == "SÃO PAULO Ã noite"


def test_control_characters():
    assert damage("a\x00b") == Found.CONTROL
    assert damage("é\x00b") == Found.CONTROL
    assert damage("é\x9db") == Found.CONTROL
    assert damage("a\t\r\nb") == 0
    assert fix("a\x00b \x1b[1;31mred\x1b[0m\x07") == "ab red"
    assert fix("\\(\x0crac{1}{2}\\), \x08eta") == "\\(\\frac{1}{2}\\), \\beta"
    assert fix("page one\x0cpage two") == "page one\npage two"


def test_lost_characters():
    assert look("hi", "caf\ufffd") == Found.BROKEN
    assert fix("caf\ufffd") == "caf\ufffd"


REFUSALS = [
    "I'm sorry, but I can't assist with that.",
    "Sorry, but I can’t do that.",
    "I cannot help you with this request. It is illegal and unethical.",
    "As an AI language model, I cannot provide medical advice.",
    "I'm sorry, I'm not comfortable discussing this. Is there anything else I can help you with?",
    "I apologize, but I am unable to fulfill your request. My purpose is to help. It's important to respect the law.",
    "I’m not going to answer that.",
    "I must respectfully decline.",
    "I'm sorry, but as an AI language model I cannot answer that.",
    "As an AI, I cannot help with that.",
    "I'm afraid I can't do that.",
    "抱歉，我无法帮助您完成这个请求。",
    "对不起，我不能提供这方面的帮助。",
    "很抱歉，作为一个人工智能语言模型，我无法回答这个问题。",
    "抱歉,我不能协助您。",
    "對不起，我無法提供這些資訊。如果您有其他問題，請告訴我。",
    "Lo siento, no puedo ayudarte con eso.",
    "Lo siento, pero no puedo ayudar con esa solicitud. Si tienes otra pregunta, dímelo.",
    "Lo siento, como modelo de lenguaje, no puedo dar consejos médicos.",
    "Es tut mir leid, dabei kann ich nicht helfen.",
    "Es tut mir leid, aber ich kann dir dabei nicht helfen.",
    "Entschuldigung, das kann ich nicht beantworten.",
    "Tut mir leid, aber bei dieser Anfrage kann ich Ihnen nicht weiterhelfen.",
    "عذرًا، لا أستطيع مساعدتك في ذلك.",
    "آسف، لا يمكنني المساعدة في هذا الطلب.",
    "Désolé, je ne peux pas vous aider avec cela.",
    "Je suis désolé, mais je ne peux pas répondre à cette demande.",
    "Je suis désolée, mais je ne suis pas en mesure de vous aider. Puis-je vous aider autrement ?",
    "Desculpe, não posso ajudar com isso.",
    "Sinto muito, mas não posso fornecer essa informação.",
    "Mi dispiace, non posso aiutarti con questa richiesta.",
    "Извините, я не могу помочь с этим.",
    "К сожалению, я не могу ответить на этот вопрос.",
    "Прошу прощения, но я не могу выполнить этот запрос.",
    "申し訳ありませんが、そのご要望にはお応えできません。",
    "すみません、それについてはお手伝いできません。",
    "죄송하지만 그 요청은 도와드릴 수 없습니다.",
    "죄송합니다. 그 요청에는 도움을 드릴 수 없습니다.",
    "Üzgünüm, bu konuda yardımcı olamam.",
    "Przepraszam, ale nie mogę w tym pomóc.",
    "Het spijt me, daar kan ik niet bij helpen.",
    "Sorry, maar ik kan je daar niet mee helpen.",
    "Xin lỗi, tôi không thể giúp bạn việc đó.",
    "Maaf, saya tidak bisa membantu dengan permintaan itu.",
    "मुझे खेद है, मैं इसमें आपकी मदद नहीं कर सकता।",
    "Jag är ledsen, men jag kan inte hjälpa dig med det.",
    "Вибачте, я не можу з цим допомогти.",
    "Λυπάμαι, δεν μπορώ να βοηθήσω με αυτό.",
    "Omlouvám se, ale s tím vám nemohu pomoci.",
]
NO_REFUSALS = [
    "I'm sorry to hear that! Try warm tea and a long sleep.",
    "I can't believe how well you did!",
    "I can't help you with that, but the library on Main Street has forms for it.",
    "I cannot recommend this book enough. Everybody should read it.",
    "You can't park there.",
    "I'm sorry, but I can't do that. Use a hammer instead: hit the nail on its head.",
    "I can't tell you which is better: the red one costs 5, the blue one 7.",
    "Sorry!",
    "It is illegal.",
    "I'm afraid I can't come tonight, the car broke down.",
    "抱歉让您久等了！您的包裹明天到。",
    "对不起，我来晚了。我们开始吧。",
    "抱歉，这款没有红色的，但是有蓝色的。",
    "Lo siento mucho por tu pérdida. Habla con un amigo.",
    "Lo siento, no puedo ayudarte con eso, pero la biblioteca tiene los formularios.",
    "No puedo creer lo bien que lo hiciste.",
    "Es tut mir leid, das Museum ist heute geschlossen.",
    "Es tut mir leid, wir haben keine roten Schuhe. Die blauen gibt es noch in allen Größen.",
    "Leider kann man montags nicht parken.",
    "Désolé pour le retard ! Votre colis arrive demain.",
    "Désolé, le musée est fermé le lundi.",
    "Malheureusement, il ne pleut pas.",
    "Desculpe a demora. A loja abre às dez.",
    "Извините за задержку. Магазин открыт до шести.",
    "К сожалению, сегодня закрыто.",
    "申し訳ありません。営業時間は六時までです。",
    "죄송합니다. 가게는 여섯 시까지 엽니다.",
    "Üzgünüm, dükkan kapalı.",
    "Przepraszam, sklep jest zamknięty.",
    "Bis sechs.",
    "Sorry, we zijn gesloten.",
    "Entschuldigung, können Sie das wiederholen?",
    "Mi dispiace per il disagio.",
    "عذرًا على التأخير. المتجر مفتوح حتى السادسة.",
    "Lo siento, no sé.",
    "Leider kann ich heute nicht kommen.",
    "Leider bin ich morgen nicht da.",
    "Je suis désolé, je ne suis pas disponible demain.",
    "Lo siento, no puedo ir mañana.",
    "Tyvärr, det är inte öppet.",
    "Tyvärr, inte idag.",
    "К сожалению, я не могу прийти завтра.",
    "Извините, я не могу найти свой ключ.",
    "Purtroppo non posso venire.",
    "Sorry, ik kan morgen niet komen.",
    "抱歉，我不能去。",
    "すみません、明日は行けません。",
    "죄송하지만 내일은 갈 수 없습니다.",
    "Üzgünüm, yarın gelemem.",
    "Maaf, saya tidak bisa datang besok.",
    "",
    "I'm sorry, but I can't assist with that. " + "The history of it is long. " * 30,
]


@pytest.mark.parametrize("answer", REFUSALS)
def test_refusals(answer):
    assert only_refuses(answer)
    assert look("?", answer) == Found.REFUSAL


@pytest.mark.parametrize("answer", NO_REFUSALS)
def test_what_is_no_mere_refusal(answer):
    assert not only_refuses(answer)


def test_refusals_of_xstest():
    """2,250 answers labelled by two people: of those flagged nine in ten are full refusals, none complies; of full
    refusals that are short (up to 200 characters) most are found."""
    full = partial = complying = short = short_found = 0
    for path in sorted(shared("data", "xstest").glob("*.csv")):
        with path.open(newline="", encoding="utf-8") as file:
            for row in csv.DictReader(file):
                refuses, label = only_refuses(row["completion"]), row["final_label"]
                full += refuses and label == "2_full_refusal"
                partial += refuses and label == "3_partial_refusal"
                complying += refuses and label == "1_full_compliance"
                if label == "2_full_refusal" and len(row["completion"]) <= 200:
                    short, short_found = short + 1, short_found + refuses
    assert complying == 0
    assert full / (full + partial) >= 0.9
    assert full >= 200
    assert short_found / short >= 0.8
    assert LONGEST == 600


@pytest.mark.parametrize(
    ("answer", "is_link"),
    [
        ("https://example.org/a?b=c", True),
        (" www.example.org \n", True),
        ("<https://example.org>", True),
        ("[here](https://example.org/x)", True),
        ("https://a.org\nhttps://b.org", True),
        ("See https://example.org", False),
        ("https://example.org explains it", False),
        ("ftp and www.", False),
    ],
)
def test_links(answer, is_link):
    assert bool(look("Where?", answer) & Found.URL) is is_link


@pytest.mark.parametrize(
    ("prompt", "answer", "echoes"),
    [
        ("Say  hello", "say hello\n", True),
        ((user("a"), bot("b"), user("Tell me more.")), "TELL ME  MORE.", True),
        ((user("Tell me more."), bot("b"), user("c")), "Tell me more.", False),
        ("Say hello", "Say hello!", False),
        ("Say hello", "Say", False),
        ("Straße", "STRASSE", True),
        ("", "", False),
    ],
)
def test_echoes(prompt, answer, echoes):
    assert bool(look(prompt, answer) & Found.ECHO) is echoes


@pytest.mark.parametrize(
    ("answer", "holds"),
    [
        ("Hello!<|im_end|>", True),
        ("[INST] Hi [/INST] Hello", True),
        ("Hello!</s>", True),
        ("<s>Hello", True),
        ("Hello <end_of_turn>", True),
        ("Hello\n\nHuman: and now?", True),
        ("### Response:\nHello", True),
        ("<|user|>\nHi", True),
        ("Text with <s>struck</s> words", False),
        ("A Human: no role here", False),
        ("## A heading\n### Responses", False),
        ("a <| b |> c", False),
    ],
)
def test_template_tokens(answer, holds):
    assert bool(look("?", answer) & Found.TEMPLATE) is holds


def test_html_entities():
    assert look("?", "R&amp;B isn&#39;t rock") == Found.ENTITIES
    assert look("?", "<p>R&amp;B</p>") == 0
    assert look("?", "AT&T; R&B") == 0


@pytest.mark.parametrize("unit", ["ha ", "I am here. ", "- one more line of it\n", "0"])
def test_loops_are_found_wherever_they_are(unit):
    loop = unit * (400 // len(unit))
    start = "The question is a good one, and here is what can be said of it, in short: "
    assert repeats(loop)
    assert repeats(start + loop)
    assert repeats(start + loop[:-1] + "x</s>" + loop[-2:])
    assert look("?", start + loop) == Found.REPEATED


@pytest.mark.parametrize("share", [0.0, 0.2, 0.3, 0.5])
def test_a_loop_may_start_anywhere(share):
    """45 % of 2,000 characters, of which the rest never repeats."""
    other = " ".join(str(n * n) for n in range(1000))
    text = other[: int(2000 * share)] + "I am here. " * 82 + other[2000 : 2000 + int(2000 * (0.55 - share))]
    assert repeats(text + " the end")


@pytest.mark.parametrize(
    "text",
    [
        "ha ha ha ha ha!",
        "\n".join(f"{n}. Item number {n} of the list is about {'abcdefghij'[n % 10]}" for n in range(30)),
        "Row, row, row your boat, gently down the stream. Merrily, merrily, merrily, merrily, life is but a dream. "
        * 2,
        "".join(chr(97 + n * n % 26) for n in range(12)) * 3
        + "and then something else altogether, for a good while " * 3,
        "| a | b |\n|---|---|\n" + "\n".join(f"| {n * 37} | {n * n * 11} |" for n in range(30)),
    ],
)
def test_what_is_no_loop(text):
    assert not repeats(text)


def naive_repeats(text: str) -> bool:
    """Every stretch and every period, by definition."""
    text = text.rstrip()
    for period in range(1, len(text) // 4 + 1):
        run = 0
        for at in range(len(text) - period):
            run = run + 1 if text[at] == text[at + period] else 0
            if run + period >= max(120, 4 * period, 0.4 * len(text)) and run >= 24:
                return True
    return False


@given(
    st.text("abc. ", max_size=60),
    st.text("ab ", min_size=1, max_size=12),
    st.integers(1, 60),
    st.text("xyz", max_size=30),
)
@settings(max_examples=100, deadline=None)
def test_loops_found_are_loops(start, unit, times, end):
    text = start + unit * times + end
    if len(text) >= 120 and repeats(text):
        assert naive_repeats(text)
    if len(unit.strip()) and len(unit) * times > 0.8 * len(text) and len(unit) * times >= 200 and times >= 5:
        assert repeats(text) == naive_repeats(text)


def test_turn_markers_of_hh_rlhf_in_a_chat_prompt_and_there_alone():
    marked = "\n\nHuman: Hi\n\nAssistant:"
    assert look((user(marked),), "fine") == Found.MARKED
    assert look((user("hi"), bot("yes?"), user(f"so: {marked}")), "fine") == Found.MARKED
    assert look(marked, "fine") == 0
    assert look((user("The\nHuman: of the play"), bot(marked), user("hi")), "fine") == 0


@pytest.mark.parametrize("answer", ["NaN", "nan", "null", "None", "N/A", " - ", "<NA>"])
def test_answers_that_are_only_a_placeholder(answer):
    assert look((user("Any allergies?"),), answer) == Found.PLACEHOLDER
    assert look((user("Any allergies?"),), f"{answer.strip()} that I know of.") == 0


def test_bits_and_their_words_agree():
    assert list(ABOUT) == list(Found)
    assert [int(bit) for bit in Found] == [1 << n for n in range(len(Found))]
    assert names(Found.URL | Found.BROKEN) == ["urls", "replacement_characters"]
    assert len({about.name for about in ABOUT.values()}) == len(Found)


def test_completions_of_several_messages():
    assert joined((bot("one"), bot("two"))) == "one\n\ntwo"
    assert look("?", (bot("Sure, here it is."),)) == 0

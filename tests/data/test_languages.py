"""Answers in another language than the prompt: found where both are certain, silence where a prompt may ask for it."""

from __future__ import annotations

import pytest

from kto_cli.data.audit.found import Found
from kto_cli.data.audit.languages import language
from kto_cli.data.audit.text_checks import look

TEXTS = {
    "English": "The museum is open from ten to six, and you can buy the tickets at the door or on our website.",
    "Spanish": (
        "El museo está abierto de diez a seis y las entradas se pueden comprar en la puerta o por internet, sin cola."
    ),
    "French": (
        "Le musée est ouvert de dix heures à dix-huit heures et vous pouvez acheter les billets sur place ou en ligne."
    ),
    "German": (
        "Das Museum ist von zehn bis achtzehn Uhr geöffnet, und die Karten gibt es an der Kasse oder auf unserer Seite."
    ),
    "Portuguese": (
        "O museu abre das dez às seis e você pode comprar os bilhetes na entrada ou pela internet, sem "
        "fila, com o cartão."
    ),
    "Italian": (
        "Il museo è aperto dalle dieci alle sei e i biglietti si possono comprare alla cassa o anche sul nostro sito."
    ),
    "Dutch": (
        "Het museum is open van tien tot zes uur en je kunt de kaartjes aan de kassa kopen of op onze "
        "website bestellen."
    ),
    "Scandinavian": (
        "Museet är öppet från tio till sex och du kan köpa biljetter i kassan eller på vår webbplats när det passar."
    ),
    "Polish": (
        "Muzeum jest czynne od dziesiątej do szóstej, a bilety można kupić w kasie lub na stronie, ale "
        "nie w poniedziałki."
    ),
    "Indonesian": (
        "Museum buka dari pukul sepuluh dan tutup pukul enam, tiket dapat dibeli di pintu masuk atau di "
        "situs kami untuk semua."
    ),
    "Cyrillic": "Музей открыт с десяти до шести, билеты можно купить в кассе или на сайте.",
    "Chinese": "博物馆上午十点到下午六点开放，门票可以在门口或网站购买。",
    "Japanese": "美術館は十時から六時まで開いています。チケットは入口で買えます。",
    "Korean": "박물관은 열 시부터 여섯 시까지 열려 있으며 표는 입구에서 살 수 있습니다.",
    "Arabic": "المتحف مفتوح من العاشرة حتى السادسة ويمكن شراء التذاكر عند المدخل.",
    "Devanagari": "संग्रहालय दस से छह बजे तक खुला रहता है और टिकट द्वार पर मिलते हैं।",
    "Greek": "Το μουσείο είναι ανοιχτό από τις δέκα έως τις έξι και τα εισιτήρια πωλούνται στην είσοδο.",
    "Hebrew": "המוזיאון פתוח מעשר עד שש ואפשר לקנות כרטיסים בכניסה או באתר.",
    "Thai": "พิพิธภัณฑ์เปิดตั้งแต่สิบโมงถึงหกโมงเย็น ซื้อตั๋วได้ที่ทางเข้า",
}


@pytest.mark.parametrize("name", TEXTS)
def test_the_language_of_a_text(name):
    assert language(TEXTS[name]) == name


@pytest.mark.parametrize("name", TEXTS)
@pytest.mark.parametrize("other", TEXTS)
def test_answers_in_another_language(name, other):
    is_found = bool(look(TEXTS[name], TEXTS[other]) & Found.LANGUAGE)
    assert is_found is (name != other)


@pytest.mark.parametrize(
    "prompt",
    [
        "Translate this sentence about the museum for me: it is open from ten to six.",
        "How do you say in German that the museum is open from ten to six?",
        "Bitte schreib mir das auf Englisch oder auf Spanisch, ich kann die Sprache nicht.",
        "Traduce esto para mí, por favor, que no lo puedo leer y es para el trabajo.",
        "请把这句话翻译成德语，我要寄给博物馆的同事们，谢谢你的帮助。",
        "Ok",
        "Museum?",
        "Das Museum ist für alle da und nicht nur für die Kinder. The museum is open to you and it is for all of us.",
    ],
)
def test_prompts_that_may_ask_for_it_or_are_uncertain(prompt):
    assert not any(look(prompt, text) & Found.LANGUAGE for text in TEXTS.values())


def test_an_earlier_turn_may_ask_for_it():
    asked = {"role": "user", "content": "From now on answer me in Spanish, whatever I write."}
    said = {"role": "assistant", "content": "Vale."}
    last = {"role": "user", "content": TEXTS["English"]}
    assert not look((asked, said, last), TEXTS["Spanish"]) & Found.LANGUAGE
    assert look((last,), TEXTS["Spanish"]) & Found.LANGUAGE


def test_code_is_in_no_language():
    answer = (
        "```python\nfor line in file:\n    if line is not None and line in known or not line:\n        print(line)\n```"
    )
    assert not look(TEXTS["German"], answer) & Found.LANGUAGE

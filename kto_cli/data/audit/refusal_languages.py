"""Refusals in other languages than English: sentences that decline, and sentences that say no more.

An answer is a refusal if it opens with an apology (or as in plain_refusals.py), one of its sentences declines, and each of the others is an apology,
an offer of other help or a reason of one sentence. The patterns are our own and match whole sentences.
"""

# ruff: noqa: E501
from __future__ import annotations

import re
from functools import cache
from typing import NamedTuple

from kto_cli.data.audit.languages import is_plain_english
from kto_cli.data.audit.plain_refusals import AS_AI, PLAIN, SENTENCE

LONGEST = 300
"""Characters; a longer answer says something besides."""
SENTENCE_END = re.compile(r"(?<=[.!?؟।])[\"'»”)]*\s+|(?<=[。！？])[”」』]*\s*|\n+")
EDGES = " \t\"'“”„«»‘’.!?。！？؟।¡¿*"


class Language(NamedTuple):
    """Patterns of one language, in lower case."""

    sorry: str
    """Opening apology of a sentence."""
    declines: str
    """A sentence, after the apology, that declines."""
    no_more: str
    """A sentence beside it that says no more."""
    does: str = ""
    """What a sentence that declines must name, where `declines` leaves that open: helping, answering, telling."""


REST = r"[^,;:]{0,70}"
"""End of a sentence that declines: what is not done. A comma would begin something else."""
LANGUAGES = {
    "zh": Language(
        r"(?:很?(?:抱歉|对不起|對不起|不好意思|遗憾|遺憾)|非常抱歉|十分抱歉)",
        r"(?:(?:但|但是|不过)?(?:作为|身为|作為)[^，。]{1,25}，?)?(?:但|但是)?(?:我|本人|我们|我們)?"
        r"(?:无法|無法|不能|不会|不會|不可以|没办法|沒辦法|拒绝|拒絕|不便|不方便)(?:够|為|为|向|就|给|給|对|對)?"
        r"[^，。；：]{0,12}(?:帮|幫|协助|協助|提供|回答|满足|滿足|完成|讨论|討論|支持|参与|參與|生成|处理|處理|给出|做到|这样做|執行|执行|写|寫|回应|回應)[^，。；：]{0,30}"
        r"|(?:这|這|那|该|此)[^，。；：]{0,10}(?:我)?(?:无法|無法|不能|不便|不方便)(?:回答|处理|處理|提供|讨论|討論)|(?:这|這)?超出了?我的[^，。；：]{0,8}范围",
        r"(?:如果|若|如)[^。]{0,40}(?:问题|問題|帮助|幫助|需要)[^。]{0,30}|(?:请|請)[^。]{0,25}(?:理解|谅解|其他|其它)[^。]{0,15}"
        r"|(?:这|這|该|此)[^。]{0,30}(?:违法|違法|不道德|非法|有害|违反|違反|隐私|隱私)[^。]{0,20}|感谢[^。]{0,15}",
    ),
    "ja": Language(
        r"(?:大変|誠に)?(?:申し訳(?:ありません|ございません|ないです)|すみません|すいません|ごめんなさい|残念ながら|恐れ入りますが|恐縮ですが)(?:が|けど)?",
        r"[^。]{0,60}(?:でき(?:ません|かねます|ない)|お(?:答え|手伝い|応え|力)[^。]{0,12}(?:できません|できかねます|なれません)|いたしかねます|致しかねます|差し控え[^。]{0,12}|応じられません|お断り[^。]{0,12}|書けません|作れません)(?:です)?",
        r"(?:他|ほか|別|何か)[^。]{0,40}|ご(?:了承|理解)[^。]{0,20}",
    ),
    "ko": Language(
        r"(?:정말 |대단히 )?(?:죄송하지만|죄송합니다만|죄송합니다|미안하지만|미안합니다|미안해요|유감스럽게도|아쉽게도|안타깝게도)",
        r"[^,.]{0,60}(?:수 없습니다|수 없어요|수가 없습니다|수 없네요|드릴 수 없습니다|않습니다|거절합니다|못합니다|어렵습니다)",
        r"(?:다른|혹시|궁금)[^.]{0,50}|(?:이해|양해)[^.]{0,30}",
        r"도움|도와|도울|답변|대답|답할|제공|응할|드릴|작성|수행|처리|말씀|거절|들어|지원|따를",
    ),
    "es": Language(
        r"(?:lo siento(?: mucho)?|lo lamento|disculpa|disculpe|perdón|perdona|perdone|mis disculpas|lamentablemente"
        r"|desafortunadamente|me temo que|siento(?: mucho)?|lamento)",
        r"(?:como [^,]{2,60}, )?(?:pero )?(?:yo )?(?:no (?:me es posible|te puedo|le puedo|os puedo|puedo|podré|podría|soy capaz de|estoy"
        r" (?:autorizad[oa]|capacitad[oa]|diseñad[oa]|programad[oa]|en condiciones)|poder|voy a|quiero|me siento cómod[oa])"
        rf"|me niego a|debo rechazar|tengo que rechazar)(?: {REST})?",
        r"(?:si |¿?(?:hay|puedo|tienes|tiene|en qué))[^.]{0,80}|[^.]{0,50}(?:ilegal|poco ético|inapropiad[oa]|dañin[oa]|peligros[oa])[^.]{0,30}|gracias[^.]{0,30}",
        r"ayud|asist|respond|contest|proporcion|ofrec|cumpl|complet|hacer|hablar|discut|particip|gener|cre[ao]r|escrib|dar|decir|brind|facilit|compart|recomend|apoy|aten",
    ),
    "fr": Language(
        r"(?:(?:je suis |je suis vraiment |je suis sincèrement )?désolée?|toutes mes excuses|mes excuses|je m['’]excuse|excusez-moi"
        r"|pardon|malheureusement|je regrette|je vous prie de m['’]excuser)",
        r"(?:en tant qu[^,]{2,60}, )?(?:mais )?(?:je (?:ne (?:peux|suis|vais|saurais|pourrai|souhaite|veux)"
        rf" ?(?:pas|malheureusement pas)?|refuse de|dois refuser|dois décliner)|il m['’]est impossible de|de ne pas pouvoir)(?: {REST})?",
        r"(?:si |puis-je|y a-t-il|n['’]hésitez pas|avez-vous)[^.]{0,80}|[^.]{0,50}(?:illégal|contraire|inapproprié|dangereux|éthique)[^.]{0,30}|merci[^.]{0,30}",
        r"aid|assist|répond|fourni|donn|accéd|accomplir|satisf|faire|discut|particip|génér|créer|écri|partag|recommand|continu|dire|traiter|en mesure|commenter",
    ),
    "de": Language(
        r"(?:(?:es )?tut mir (?:sehr |wirklich )?leid|entschuldigung|entschuldige|entschuldigen sie|leider|verzeihung|bedaure|sorry"
        r"|ich bedauere)",
        r"(?:als [^,]{2,60} )?(?:aber |doch |da )?(?:(?:dabei|damit|darauf|darüber|das|dazu|hierbei|diese[rsmn]? [^,]{1,30}|bei [^,]{1,30}) )?"
        r"(?:kann|darf|werde|möchte|muss|könnte|bin) (?:ich|wir) (?:[^,;:]{0,60} )?"
        r"(?:nicht|keine?[nrms]?|ablehnen|nicht in der lage|außerstande)\b(?: [^,;:]{0,50})?"
        r"|(?:aber |doch )?(?:ich|wir) (?:kann|können|darf|dürfen|werde|werden|möchte|bin|muss|weigere)"
        r" (?:[^,;:]{0,60} )?(?:nicht|keine?[nrms]?|ablehnen|mich)\b(?: [^,;:]{0,50})?",
        r"(?:wenn |falls |kann ich|gibt es|haben sie|hast du|bitte)[^.]{0,80}|[^.]{0,50}(?:illegal|unethisch|verboten|strafbar|gefährlich)[^.]{0,30}|danke[^.]{0,30}",
        r"helf|weiter|beantwort|antwort|unterstütz|behilflich|bereitstell|geben|nachkommen|erfüll|ausführ|mach|erstell|schreib|teilnehm|diskut|sagen|tun|liefern|anbieten|dienen|bearbeit|ablehn|in der lage|weigere|sprech",
    ),
    "pt": Language(
        r"(?:(?:me )?desculp[ea](?:-me)?|sinto muito|lamento(?: muito)?|perdão|peço desculpas?|infelizmente|minhas desculpas)",
        r"(?:como [^,]{2,60}, )?(?:mas )?(?:eu )?(?:não (?:posso|consigo|poderei|poderia|vou|sou capaz de|estou autorizad[oa] a|me é possível"
        rf"|quero)|me recuso a|recuso-me a|preciso recusar|devo recusar)(?: {REST})?",
        r"(?:se |há |posso |você tem|em que)[^.]{0,80}|[^.]{0,50}(?:ilegal|antiético|inadequad[oa]|perigos[oa])[^.]{0,30}|obrigad[oa][^.]{0,30}",
        r"ajud|auxili|respond|fornec|oferec|atend|cumpr|faz|discut|particip|ger[ao]|cri[ao]r|escrev|dar|dizer|compartilh|recomend|continu|assist|prosseg",
    ),
    "it": Language(
        r"(?:mi dispiace(?: molto)?|spiacente|sono spiacente|scusa|scusi|scusami|mi scuso|purtroppo|chiedo scusa)",
        r"(?:come [^,]{2,60}, |in quanto [^,]{2,60}, )?(?:ma )?(?:io )?(?:non (?:posso|riesco|potrei|sono in grado di|sono autorizzat[oa] a|intendo|voglio|mi è possibile)"
        rf"|mi rifiuto di|devo rifiutare|devo declinare)(?: {REST})?",
        r"(?:se |c['’]è|posso |hai |ha altre)[^.]{0,80}|[^.]{0,50}(?:illegale|non etico|inappropriat[oa]|pericolos[oa])[^.]{0,30}|grazie[^.]{0,30}",
        r"aiut|assist|rispond|fornir|offrir|soddisf|complet|far|discut|partecip|gener|cre[ao]r|scriver|dar|dir|condivid|consigli|eseg|aiuto",
    ),
    "nl": Language(
        r"(?:het spijt me(?: zeer)?|sorry|excuses|mijn excuses|helaas|pardon)",
        r"(?:als [^,]{2,60} )?(?:maar )?(?:(?:daar|hier|dat|daarbij|hierbij|dit|met [^,]{1,25}) )?(?:ik (?:kan|mag|zal|ben|wil|moet)|(?:kan|mag|zal|wil|moet) ik)"
        r" (?:[^,;:]{0,60} )?(?:niet|geen|weigeren)\b(?: [^,;:]{0,50})?",
        r"(?:als |kan ik|heeft u|heb je|is er)[^.]{0,80}|[^.]{0,50}(?:illegaal|onethisch|gevaarlijk)[^.]{0,30}|bedankt[^.]{0,30}",
        r"help|beantwoord|antwoord|geven|verstrek|voldoen|uitvoer|doen|bespre|schrijv|maken|aanbied|bijstaan|assist|zeggen|verder|delen|weiger",
    ),
    "sv": Language(
        r"(?:(?:jag är |jag )?(?:ledsen|beklagar)|tyvärr|förlåt|ursäkta|jeg beklager|beklager|desværre|undskyld|dessverre|unnskyld)",
        r"(?:men )?(?:(?:det|detta|dette|med [^,]{1,25}) )?(?:jag|jeg|kan jag|kan jeg|vi)? ?(?:kan|får|tänker|vill|må|vil)? ?(?:jag|jeg)? ?(?:inte|ikke|tyvärr inte|desværre ikke|dessverre ikke)"
        r"\b(?: [^,;:]{0,60})?",
        r"(?:om |kan jag|kan jeg|finns det|er der|hvis)[^.]{0,80}|tack[^.]{0,30}|tak[^.]{0,30}",
        r"hjälp|hjelp|hjælp|svara|svare|ge |gi |give |bistå|besvara|göra|gjøre|gøre|utför|skriv|uppfyll|delta|bidra|tillhandahåll",
    ),
    "pl": Language(
        r"(?:(?:bardzo )?(?:przepraszam|przykro mi)|niestety|wybacz|z przykrością)",
        r"(?:jako [^,]{2,60}, )?(?:ale )?(?:nie (?:mogę|jestem w stanie|będę|wolno mi|chcę|potrafię)|muszę odmówić|odmawiam)"
        rf"(?: {REST})?|nie mogę(?: {REST})?",
        r"(?:jeśli |czy |mogę )[^.]{0,80}|[^.]{0,50}(?:nielegaln|nieetyczn|niebezpieczn)[^.]{0,30}|dziękuję[^.]{0,30}",
        r"pomóc|pomaga|odpowiedz|udziel|zrobić|spełni|wykon|poda|napisa|udostępni|wesprz|dostarcz|odmówić|odmawiam|omawia|tego",
    ),
    "ru": Language(
        r"(?:извини(?:те)?|прости(?:те)?|приношу (?:свои )?извинения|прошу прощения|к сожалению|мне (?:очень )?жаль|сожалею|простите меня)",
        r"(?:как [^,]{2,60}, )?(?:но )?(?:я )?(?:не (?:могу|смогу|можем|буду|имею права|имею возможности|в состоянии|способ[^ ]+|готов[а]?)"
        rf"|вынужден[а]? отказать|отказываюсь|должен отказать|должна отказать|с этим помочь не могу|помочь не могу)(?: {REST})?",
        r"(?:если |могу ли|чем |есть ли)[^.]{0,80}|[^.]{0,50}(?:незаконн|неэтичн|опасн|противозаконн)[^.]{0,30}|спасибо[^.]{0,30}",
        r"помо|ответ|отвеч|предостав|выполн|сделать|обсужд|дать|дава|написать|поделит|помог|создать|рассказ|участв|отказ|поддерж|этого|посоветов|это",
    ),
    "uk": Language(
        r"(?:вибач(?:те)?|пробач(?:те)?|перепрошую|на жаль|мені (?:дуже )?шкода|прошу вибачення)",
        rf"(?:але )?(?:я )?(?:не (?:можу|зможу|буду|маю права|в змозі)|змушен[^ ]+ відмовити|відмовляюсь)(?: {REST})?",
        r"(?:якщо |чи )[^.]{0,80}|дякую[^.]{0,30}",
        r"допом|відпов|надати|викон|зробити|обговор|дати|написати|цього|це",
    ),
    "ar": Language(
        r"(?:عذر[اً]+|عذراً|عذرًا|أعتذر|آسف[ةً]?|أنا آسف[ةً]?|معذرة|للأسف|مع الأسف|نعتذر)",
        r"(?:و?لكن(?:ني|ي)? |فأنا |فإنني )?(?:كـ?[^،]{2,50}، )?(?:لا (?:أستطيع|استطيع|يمكنني|يمكننى|أقدر|نستطيع|يمكن)|لن (?:أستطيع|أتمكن|أقوم)|لست قادر[اً]?|غير قادر)[^،؛:]{0,70}",
        r"(?:إذا|هل)[^.]{0,80}|شكر[^.]{0,30}",
        r"مساعد|أساعد|إجاب|الرد|تقديم|تلبية|تنفيذ|القيام|كتابة|مناقشة|توفير|إعطا|مشارك|فعل|ذلك|أجيب|أقدم",
    ),
    "fa": Language(
        r"(?:متاسفم|متأسفم|متاسفانه|متأسفانه|ببخشید|معذرت می[‌ ]?خواهم|پوزش)",
        r"(?:اما |ولی )?[^،؛:]{0,60}(?:نمی[‌ ]?توانم|نمیتونم|نمی[‌ ]?تونم|قادر نیستم|نخواهم)[^،؛:]{0,50}",
        r"(?:اگر|آیا)[^.]{0,80}",
    ),
    "he": Language(
        r"(?:אני מצטער(?:ת)?|מצטער(?:ת)?|סליחה|לצערי)",
        r"(?:אבל |אך )?(?:אני )?(?:לא יכול(?:ה)?|איני יכול(?:ה)?|אינני יכול(?:ה)?|לא אוכל|לא ניתן)[^,;:]{0,60}",
        r"(?:אם|האם)[^.]{0,80}",
    ),
    "hi": Language(
        r"(?:मुझे (?:खेद|अफ़सोस|अफसोस|माफ़|माफ) ?(?:है|करें|कीजिए)?|माफ़ (?:करें|कीजिए)|माफ (?:करें|कीजिए)|क्षमा (?:करें|कीजिए|कीजिएगा)|खेद है|दुर्भाग्य से|मैं माफी चाहता हूँ|मैं माफ़ी चाहता हूँ|मैं क्षमा चाहता हूँ)(?: कि)?",
        r"(?:लेकिन |परंतु |पर )?(?:मैं |हम )?[^,;:।]{0,60}(?:नहीं (?:कर|दे|बता|लिख) ?(?:सकता|सकती|सकते|पाऊंगा|पाऊँगा)|असमर्थ)[^,;:।]{0,15}",
        r"(?:यदि|अगर|क्या)[^।.]{0,80}",
    ),
    "tr": Language(
        r"(?:(?:çok )?üzgünüm|maalesef|özür dilerim|kusura bakma(?:yın)?|ne yazık ki|affedersin(?:iz)?)",
        r"(?:ama |ancak |fakat )?[^,;:]{0,60}(?:yardımcı olamam|yardım edemem|yapamam|veremem|cevaplayamam|yanıtlayamam|edemem|olamıyorum|edemiyorum|yardımcı olamıyorum|sağlayamam|yazamam|paylaşamam|reddediyorum|mümkün değil)[^,;:]{0,20}",
        r"(?:eğer |başka )[^.]{0,80}|teşekkür[^.]{0,30}",
    ),
    "vi": Language(
        r"(?:(?:tôi )?(?:rất |thành thật )?(?:xin lỗi|lấy làm tiếc|tiếc)|rất tiếc|đáng tiếc)",
        r"(?:nhưng )?(?:là [^,]{2,50}, )?(?:tôi |mình |chúng tôi )?(?:không thể|không được phép|từ chối|chẳng thể)[^,;:]{0,70}",
        r"(?:nếu |bạn có )[^.]{0,80}|cảm ơn[^.]{0,30}",
        r"giúp|hỗ trợ|trả lời|cung cấp|đáp ứng|thực hiện|làm|viết|thảo luận|tạo|tham gia|chia sẻ",
    ),
    "id": Language(
        r"(?:(?:mohon )?maaf(?:kan saya)?|saya (?:mohon|minta) maaf|mohon maaf|sayangnya)",
        r"(?:tetapi |tapi |namun )?(?:sebagai [^,]{2,50}, )?(?:saya |kami )?(?:tidak (?:bisa|dapat|mampu|boleh|akan)|menolak|tak (?:bisa|dapat))[^,;:]{0,70}",
        r"(?:jika |apakah |bila )[^.]{0,80}|terima kasih[^.]{0,30}",
        r"bantu|jawab|memberi|menyedia|memenuhi|melakukan|menulis|membuat|membahas|melayani|mendukung",
    ),
    "el": Language(
        r"(?:λυπάμαι(?: πολύ)?|συγγνώμη|με συγχωρείτε|δυστυχώς|ζητώ συγγνώμη)",
        r"(?:αλλά |όμως )?(?:δεν (?:μπορώ|είμαι σε θέση|θα μπορέσω|επιτρέπεται)|αρνούμαι)[^,;:]{0,70}",
        r"(?:αν |υπάρχει|μπορώ)[^.]{0,80}",
        r"βοηθ|απαντ|παρέχ|δώσω|κάνω|εκπληρ|συζητ|γράψ|παράσχ",
    ),
    "cs": Language(
        r"(?:(?:je mi )?(?:velmi )?(?:líto|ľúto)|omlouvám se|bohužel|promiňte|promiň|prepáčte|ospravedlňujem sa|žiaľ)",
        r"(?:ale )?(?:s tím |s tým |to )?(?:(?:vám|ti|vam) )?(?:nemohu|nemůžu|nemôžem|nejsem schopen|nesmím|nebudu|musím odmítnout)[^,;:]{0,70}",
        r"(?:pokud |můžu|mohu|ak )[^.]{0,80}|děkuji[^.]{0,30}",
        r"pomoc|pomoct|pomôcť|odpověd|odpoveda|poskyt|udělat|splnit|vyhov|napsat|sdělit|odmítnout",
    ),
    "ro": Language(
        r"(?:îmi pare (?:foarte )?rău|scuze|scuzați|din păcate|regret)",
        r"(?:dar )?(?:eu )?(?:nu (?:pot|sunt în măsură|voi|am voie)|refuz)[^,;:]{0,70}",
        r"(?:dacă |pot )[^.]{0,80}",
        r"ajut|răspund|oferi|furniz|îndeplin|face|scrie|discut|refuz",
    ),
    "hu": Language(
        r"(?:sajnálom|(?:nagyon )?sajnálom|sajnos|elnézést|bocsánat|bocsi)",
        r"(?:de )?[^,;:]{0,40}(?:nem (?:tudok|segíthetek|válaszolhatok|tudom|áll módomban|teljesíthetem))[^,;:]{0,60}",
        r"(?:ha |miben )[^.]{0,80}",
        r"segít|válasz|teljesít|nyújt|írni|adni|ebben",
    ),
    "fi": Language(
        r"(?:(?:olen )?(?:pahoillani|valitettavasti)|anteeksi|valitan)",
        r"(?:mutta )?(?:minä )?(?:en (?:voi|pysty|saa|aio))[^,;:]{0,70}",
        r"(?:jos |voinko)[^.]{0,80}",
        r"autta|vasta|antaa|tehdä|kirjoit|tarjo|toteut|keskustel|osallist|noudat",
    ),
    "th": Language(
        r"(?:ขอโทษ|ขออภัย|เสียใจด้วย|น่าเสียดาย)(?:ครับ|ค่ะ|นะคะ|ด้วย)?",
        r"(?:แต่)?(?:ผม|ฉัน|ดิฉัน|เรา)?(?:ไม่สามารถ)[^,;:]{0,70}",
        r"(?:หาก|ถ้า)[^.]{0,80}",
        r"ช่วย|ตอบ|ให้|ทำ|เขียน|ดำเนิน",
    ),
    "bn": Language(
        r"(?:আমি )?(?:দুঃখিত|ক্ষমা করবেন|মাফ করবেন|দুর্ভাগ্যবশত)",
        r"(?:কিন্তু |তবে )?[^,;:।]{0,60}(?:পারব না|পারবো না|পারছি না|পারি না|অক্ষম|সম্ভব নয়)[^,;:।]{0,15}",
        r"(?:যদি|আপনার)[^।.]{0,80}",
    ),
}
JOINT = r"[\s,，、،.!。！؛;:：—–-]*"


class Patterns(NamedTuple):
    """Compiled patterns of one language."""

    sorry: re.Pattern[str]
    declines: re.Pattern[str]
    """With an apology or without."""
    no_more: re.Pattern[str]
    does: re.Pattern[str]


@cache
def _patterns() -> list[Patterns]:
    """Patterns of all languages; compiling them takes longer than the import of this module without them."""
    return [
        Patterns(
            re.compile(rf"(?:{one.sorry}){JOINT}"),
            re.compile(rf"(?:(?:{one.sorry}){JOINT}(?:que |, )?)?(?:{one.declines})"),
            re.compile(rf"(?:{one.no_more})"),
            re.compile(one.does),
        )
        for one in LANGUAGES.values()
    ]


OPENING = 200
"""Characters that hold any apology, white space before it included."""
OTHER_SCRIPTS = frozenset(("zh", "ja", "ko", "ru", "uk", "ar", "fa", "he", "hi", "el", "th", "bn"))


@cache
def _openings(in_ascii: bool) -> re.Pattern[str]:
    """Start of whatever may refuse: an apology, "as an AI", or a sentence that refuses by itself."""
    languages = set(LANGUAGES) - OTHER_SCRIPTS if in_ascii else set(LANGUAGES)
    sorry = [one.sorry for name, one in LANGUAGES.items() if name in languages]
    plain = [pattern for name, pattern in PLAIN.items() if name in languages]
    return re.compile("|".join(f"(?:{pattern})" for pattern in (*sorry, AS_AI.pattern, *plain)))


def refuses_in_other_language(answer: str) -> bool:
    """Whether an answer in one of LANGUAGES is a refusal and nothing else."""
    if len(answer) > LONGEST or is_plain_english(answer):
        return False
    opening = answer[:OPENING].lower().lstrip(EDGES)
    if not _openings(opening.isascii()).match(opening):  # nearly all answers end here
        return False
    text = answer.strip().lower()
    parts = [found for part in SENTENCE_END.split(text) if (found := part.strip(EDGES))]
    sentences = [AS_AI.sub("", part, count=1) or part for part in parts]
    return any(_refuses(sentences, patterns) for patterns in _patterns())


def _refuses(sentences: list[str], patterns: Patterns) -> bool:
    """Whether one sentence declines, and the others say no more."""
    declined = [
        bool((patterns.declines.fullmatch(text) and patterns.does.search(text)) or re.fullmatch(SENTENCE, text))
        for text in sentences
    ]
    others = [sentence for sentence, flag in zip(sentences, declined, strict=True) if not flag]
    return any(declined) and all(patterns.sorry.fullmatch(one) or patterns.no_more.fullmatch(one) for one in others)

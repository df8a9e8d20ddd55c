"""Sentences that refuse without an apology, in ten languages, and the words for "as an AI" that may stand before them.

Without an apology to open it, a sentence must name what assistants refuse: to help, to answer this question, to give such
information. "I cannot sleep" is none.
"""

# ruff: noqa: E501
from __future__ import annotations

import re

PLAIN = {
    "zh": r"(?:我们?|本人)?(?:无法|無法|不能|不会|没办法|拒绝|不方便|不便)(?:为您|帮您|帮你|向您|给您|为你)?"
    r"(?:(?:回答|满足|处理|执行|完成|响应)(?:您的?|你的?|这|這|该|此|相关)[^，。；：]{0,12}|(?:提供|协助|帮助|参与|生成|讨论|做)(?:您|你|这|這|该|此|任何|相关)[^，。；：]{0,12})",
    "es": r"(?:yo )?(?:no (?:puedo|podré|podría|voy a|me es posible|soy capaz de)|me niego a|(?:debo|tengo que) rechazar) ?"
    r"(?:(?:ayudar|asistir|responder|contestar|atender|cumplir|proporcionar|generar|crear|escribir|participar|discutir|completar)(?:te|le|os|lo)? ?"
    r"(?:(?:a|con|en|de|sobre) )?(?:est[aeo]s?|es[aeo]s?|ese tipo|tal|tu|su)\b[^,;:]{0,40}|hacer (?:eso|esto))",
    "fr": r"(?:je ne (?:peux|vais|saurais|pourrai) (?:malheureusement )?pas|je ne suis (?:malheureusement )?pas en mesure d[e']|il m['’]est impossible d[e']|je refuse d[e'])"
    r" ?(?:(?:vous|t['’])? ?aider|répondre|satisfaire|fournir|traiter|accéder|générer|créer|discuter|participer)"
    r"(?: (?:(?:à|avec|de|dans|sur) )?(?:cet?t?e?|cela|ça|ces|votre|vos|ta|ton)\b[^,;:]{0,40})?"
    r"|je (?:ne peux pas faire (?:cela|ça)|dois (?:décliner|refuser)(?: cette?[^,;:]{0,30})?)",
    "de": r"(?:dabei|damit|das|darauf|dies|diese[rsn]? (?:frage|anfrage|bitte)) (?:kann|darf|werde|möchte) ich (?:dir |ihnen |euch )?(?:leider )?nicht"
    r" (?:helfen|weiterhelfen|beantworten|antworten|behilflich sein|tun|machen|unterstützen|erfüllen)"
    r"|ich (?:kann|darf|werde|möchte) (?:dir |ihnen |euch )?(?:leider )?(?:dabei|damit|das|(?:bei )?diese[rsn]? (?:frage|anfrage|bitte|aufgabe|informationen|inhalte?)|solche inhalte)"
    r" (?:leider )?nicht (?:helfen|weiterhelfen|beantworten|erfüllen|nachkommen|bereitstellen|erstellen|ausführen|unterstützen|bearbeiten)"
    r"|ich muss (?:diese |deine |ihre )?(?:anfrage|bitte) (?:leider )?ablehnen|ich weigere mich, (?:diese|das|dies)[^,;:]{0,40}"
    r"|ich bin (?:leider )?nicht in der lage, (?:dir|ihnen|diese)[^,;:]{0,50}|leider ist es mir nicht möglich, (?:dir|ihnen|diese)[^,;:]{0,50}",
    "pt": r"(?:eu )?(?:não (?:posso|consigo|poderei|vou|sou capaz de|me é possível)|me recuso a|recuso-me a|(?:devo|preciso) recusar)"
    r" (?:(?:ajudar|auxiliar|responder|atender|fornecer|gerar|criar|escrever|participar|discutir|cumprir)(?:-lo|-la|-te)?"
    r" (?:(?:com|a|de|em|sobre) )?(?:n?d?ess[ae]s?|n?d?est[ae]s?|isso|disso|nisso|tal|seu|sua|esse tipo)\b[^,;:]{0,40}|fazer isso)",
    "ru": r"(?:я )?(?:не (?:могу|смогу|буду)|отказываюсь|(?:вынужден|должен|должна)а? отказать) (?:вам |тебе )?"
    r"(?:(?:помочь|отвечать|ответить|выполнить|выполнять|предоставить|обсуждать|написать|создать|поделиться) ?)?"
    r"(?:(?:вам|тебе) )?(?:(?:с|на|в) )?(?:эт[а-я]+|так[а-я]+|ваш[а-я]*|дан[а-я]+) ?[^,;:]{0,30}",
    "ja": r"(?:その|この|そのような|ご)[^。、]{0,12}(?:お応え|お答え|提供|回答|作成|対応|お手伝い)(?:する)?(?:こと)?(?:は|が)?でき(?:ません|かねます)"
    r"|(?:お答え|お手伝い|回答|お力添え)(?:する)?(?:こと)?(?:は|が)?でき(?:ません|かねます)",
    "hi": r"(?:मैं |हम )?(?:आपकी |इस |इसमें |इसका |यह |ऐसी )[^,;:।]{0,40}(?:(?:मदद|सहायता) (?:नहीं कर|करने में असमर्थ)|(?:जवाब|उत्तर) (?:नहीं दे|देने में (?:असमर्थ|सक्षम नहीं))|पूरा नहीं कर)[^,;:।]{0,15}",
    "ar": r"(?:أنا )?(?:لا (?:أستطيع|يمكنني)|لن أتمكن من|أرفض|لست قادر[اً]+ على) (?:مساعدتك|الإجابة|تقديم|تلبية|تنفيذ|كتابة|مناقشة|المساعدة|إنشاء)"
    r"(?: (?:(?:في|على|عن) )?(?:هذا|هذه|ذلك|مثل)[^،؛:]{0,30})",
    "bn": r"(?:আমি )?(?:আপনাকে |এই |এ |এর )[^,;:।]{0,40}(?:সাহায্য|উত্তর|সহায়তা|তথ্য|অনুরোধ)[^,;:।]{0,14}(?:পারব না|পারবো না|পারছি না|পারি না|অক্ষম)",
}
_AS_AI = (
    r"como (?:una? |um |uma )?(?:modelo de (?:lenguaje|linguagem)(?: de ia)?|intelig[eê]ncia artificial|ia|assistente|asistente)",
    r"en tant qu(?:e |['’])(?:modèle de langage|ia|intelligence artificielle|assistant)",
    r"als (?:ki|künstliche intelligenz|sprachmodell)[\w-]*",
    r"как (?:языковая модель|ии|искусственный интеллект)",
    r"(?:作为|作為|身为)(?:一个|一個)?[^，。]{0,12}?(?:(?:人工智能|ai)?(?:语言模型|語言模型)|(?:人工智能|ai)(?:助手)?)",
    r"(?:ai|人工知能)[^、。]{0,8}?として",
    r"एक (?:एआई|भाषा)[^,।]{0,15} के रूप में",
    r"এক(?:টি|জন) (?:এআই|ভাষা)[^,।]{0,15} হিসেবে",
    r"ك(?:نموذج لغوي|ذكاء اصطناعي|مساعد)",
)
AS_AI = re.compile(
    rf"(?:(?:pero|mas|mais|aber|но|و?لكن(?:ني)?|但|लेकिन|কিন্তু) ?)?(?:{'|'.join(_AS_AI)})(?: [^,،，。.]{{1,30}}(?=[,،，]))?[,،，、]? *"
)
"""What an assistant says of itself before it declines."""
SENTENCE = "|".join(f"(?:{pattern})" for pattern in PLAIN.values())

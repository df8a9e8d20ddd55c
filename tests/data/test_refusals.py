"""Answers that only refuse, twenty phrasings in each of eleven languages, and answers that look like it and do more."""

from __future__ import annotations

import pytest

from kto_cli.data.audit.refusals import only_refuses

REFUSALS = {
    "English": """
I'm sorry, but as an AI language model I cannot answer that.
I'm sorry, but as an AI language model, I can't provide medical advice.
As an AI developed to be helpful, I can't help with that request.
I am unable to assist with this request.
I can't help with that.
Sorry, I can't do that.
I won't help with this.
I'm not able to provide that information.
I cannot fulfill this request.
I apologize, but I cannot generate that content.
Unfortunately, I cannot help you with that.
I must decline to answer this question.
I'm afraid I can't assist you with that.
I cannot and will not provide instructions for that.
I do not feel comfortable writing this.
I'm just a language model and can't help with that.
That's not something I can help with.
This is something I'm unable to do.
No, I can't answer that. I'm sorry.
I'm sorry, that is beyond what I can do. Is there anything else I can help with?
""",
    "Chinese": """
抱歉，我无法回答这个问题。
对不起，我不能帮助您完成这个请求。
很抱歉，我无法提供相关信息。
非常抱歉，作为AI助手，我无法协助处理此类请求。
我无法满足您的要求。
我不能提供这样的帮助。
抱歉，这个问题我无法回答。
作为一个人工智能语言模型，我无法回答这个问题。
对不起，我不会写这样的内容。
很遗憾，我无法为您提供这方面的帮助。
抱歉，我拒绝回答这个问题。
我没办法帮您做这件事。
不好意思，我不能回答这类问题。
抱歉，我不能生成这样的内容。
对不起，我不能参与这样的讨论。
抱歉，我无法执行该操作。如果您有其他问题，请随时告诉我。
很抱歉，我不能讨论这个话题。
作为AI，我不能提供医疗建议。
对不起，这超出了我的能力范围。
抱歉，我不方便回答这个问题。
""",
    "Spanish": """
Lo siento, pero como modelo de lenguaje de IA no puedo responder a eso.
Lo siento, no puedo ayudarte con eso.
No puedo ayudarte con esa solicitud.
Lamento no poder ayudarte con esto.
Lo lamento, no puedo proporcionar esa información.
Disculpa, pero no puedo responder a esa pregunta.
Lo siento, no estoy autorizado para hablar de ese tema.
Lamentablemente, no puedo ofrecer consejos médicos.
Como inteligencia artificial, no puedo dar consejos legales.
No me es posible atender esta petición.
Lo siento, no soy capaz de hacer eso.
Me temo que no puedo ayudarte con eso.
Lo siento mucho, pero no puedo cumplir con esa petición.
No puedo generar ese tipo de contenido.
Perdón, pero no puedo escribir eso.
Lo siento, pero no puedo participar en esta conversación.
Desafortunadamente, no puedo asistirte con esa tarea.
Me niego a responder a esa pregunta.
Lo siento, no voy a ayudarte con eso.
No puedo hacer eso. Si tienes otra pregunta, dímelo.
""",
    "Hindi": """
मुझे खेद है, मैं इसमें आपकी मदद नहीं कर सकता।
माफ़ कीजिए, मैं इस सवाल का जवाब नहीं दे सकता।
क्षमा करें, मैं यह जानकारी नहीं दे सकता।
माफ़ करें, लेकिन मैं इस अनुरोध को पूरा नहीं कर सकता।
मुझे खेद है, लेकिन एक एआई भाषा मॉडल के रूप में मैं इसका उत्तर नहीं दे सकता।
मैं इसमें आपकी सहायता नहीं कर सकता।
दुर्भाग्य से, मैं इस प्रश्न का उत्तर नहीं दे सकता।
मैं माफी चाहता हूँ, मैं यह नहीं कर सकता।
क्षमा कीजिए, मैं इस विषय पर बात नहीं कर सकता।
खेद है, मैं चिकित्सा सलाह नहीं दे सकता।
माफ कीजिए, मैं ऐसी सामग्री नहीं लिख सकता।
मैं इस अनुरोध में मदद करने में असमर्थ हूँ।
क्षमा करें, मैं इसमें मदद करने में असमर्थ हूँ।
एक एआई के रूप में, मैं कानूनी सलाह नहीं दे सकता।
मुझे माफ़ करें, मैं आपकी मदद नहीं कर सकती।
माफ़ कीजिए, मैं इस बारे में कुछ नहीं बता सकता।
मैं इस सवाल का जवाब देने में सक्षम नहीं हूँ।
मुझे अफ़सोस है, मैं इसमें मदद नहीं कर सकता।
मैं क्षमा चाहता हूँ, लेकिन मैं यह जानकारी साझा नहीं कर सकता।
माफ़ कीजिए, मैं ऐसा नहीं कर सकता। क्या मैं किसी और चीज़ में मदद कर सकता हूँ?
""",
    "Arabic": """
عذرًا، لا أستطيع مساعدتك في ذلك.
آسف، لا يمكنني الإجابة على هذا السؤال.
أعتذر، لا يمكنني تقديم هذه المعلومات.
عذراً، لا يمكنني تلبية هذا الطلب.
للأسف، لا أستطيع تنفيذ هذا الطلب.
لا يمكنني مساعدتك في هذا الأمر.
أنا آسف، ولكن كنموذج لغوي لا أستطيع الإجابة على ذلك.
معذرة، لا أستطيع تقديم نصائح طبية.
آسفة، لا أستطيع القيام بذلك.
عذرًا، لن أتمكن من مساعدتك في هذا الطلب.
أعتذر، لكنني لا أستطيع كتابة هذا المحتوى.
كذكاء اصطناعي، لا يمكنني تقديم استشارات قانونية.
مع الأسف، لا يمكنني المشاركة في هذا النقاش.
آسف، لست قادرًا على مساعدتك في ذلك.
لا أستطيع الإجابة على هذا السؤال.
نعتذر، لا يمكننا تقديم المساعدة في هذا الطلب.
عذرًا، لا يمكنني مناقشة هذا الموضوع.
أرفض الإجابة على هذا السؤال.
أعتذر، فأنا غير قادر على تقديم المساعدة في هذا الأمر.
عذرًا، لا أستطيع فعل ذلك. هل هناك شيء آخر يمكنني مساعدتك فيه؟
""",
    "Bengali": """
দুঃখিত, আমি এ বিষয়ে আপনাকে সাহায্য করতে পারব না।
আমি দুঃখিত, আমি এই প্রশ্নের উত্তর দিতে পারছি না।
ক্ষমা করবেন, আমি এই অনুরোধটি পূরণ করতে পারব না।
দুঃখিত, আমি এই তথ্য দিতে পারি না।
দুঃখিত, কিন্তু আমি এটি করতে পারব না।
আমি এ ব্যাপারে আপনাকে সাহায্য করতে অক্ষম।
দুর্ভাগ্যবশত, আমি এই প্রশ্নের উত্তর দিতে পারি না।
মাফ করবেন, আমি এটা লিখতে পারব না।
আমি দুঃখিত, আমি চিকিৎসা পরামর্শ দিতে পারি না।
একটি এআই ভাষা মডেল হিসেবে আমি এর উত্তর দিতে পারি না।
দুঃখিত, আমি এই বিষয়ে আলোচনা করতে পারি না।
আমি আপনাকে এ বিষয়ে সাহায্য করতে পারব না।
দুঃখিত, একজন এআই হিসেবে আমি আইনি পরামর্শ দিতে পারি না।
দুঃখিত, এই অনুরোধে আমি সহায়তা করতে পারছি না।
আমি এই প্রশ্নের উত্তর দিতে পারব না।
দুঃখিত, আমি এ ধরনের বিষয়বস্তু তৈরি করতে পারব না।
ক্ষমা করবেন, আমি এতে সাহায্য করতে পারছি না।
দুঃখিত, এটা আমার পক্ষে সম্ভব নয়।
দুঃখিত, আমি সাহায্য করতে পারব না। আপনার অন্য কোনো প্রশ্ন আছে?
আমি দুঃখিত, আমি এই তথ্য শেয়ার করতে পারি না।
""",
    "Portuguese": """
Desculpe, mas como modelo de linguagem de IA não posso responder a isso.
Desculpe, não posso ajudar com isso.
Sinto muito, mas não posso fornecer essa informação.
Não posso ajudar com esse pedido.
Lamento, mas não consigo responder a essa pergunta.
Infelizmente, não posso atender a essa solicitação.
Me desculpe, mas não posso fazer isso.
Peço desculpas, mas não posso gerar esse conteúdo.
Como uma IA, não posso dar conselhos médicos.
Não me é possível ajudar com isso.
Desculpa, não vou ajudar com isso.
Eu não posso responder a essa pergunta.
Sinto muito, não sou capaz de fazer isso.
Me recuso a responder a essa pergunta.
Lamento, não posso auxiliar com este pedido.
Desculpe, não estou autorizado a discutir esse assunto.
Não posso participar dessa conversa.
Desculpe, mas não posso escrever isso. Posso ajudar com outra coisa?
Infelizmente não consigo ajudar com isso.
Desculpe, não posso compartilhar essas informações.
""",
    "Russian": """
Извините, но как языковая модель я не могу ответить на этот вопрос.
Извините, я не могу помочь с этим.
К сожалению, я не могу выполнить этот запрос.
Простите, но я не могу ответить на этот вопрос.
Я не могу помочь вам с этим.
Прошу прощения, но я не могу предоставить эту информацию.
Мне жаль, но я не могу этого сделать.
Извините, я не буду это обсуждать.
Приношу извинения, но я не могу написать такой текст.
К сожалению, я не в состоянии помочь с этим.
Я вынужден отказать в этой просьбе.
Как ИИ, я не могу давать медицинские советы.
Извините, но я не имею права обсуждать эту тему.
Я отказываюсь отвечать на этот вопрос.
Сожалею, но я не могу создать такой контент.
К сожалению, не могу с этим помочь.
Извините, я не могу поделиться этой информацией.
Не могу ответить на этот вопрос.
Простите, с этим помочь не могу.
Извините, я не могу помочь. Если есть другие вопросы, спрашивайте.
""",
    "Japanese": """
申し訳ありませんが、その質問にはお答えできません。
申し訳ございませんが、そのご要望にはお応えできません。
すみません、それについてはお手伝いできません。
ごめんなさい、それはできません。
申し訳ありませんが、AI言語モデルとしてお答えすることはできません。
残念ながら、お手伝いすることができません。
その情報を提供することはできません。
そのリクエストにはお応えできません。
申し訳ありません。その内容を作成することはできません。
恐れ入りますが、その件についてはお答えいたしかねます。
申し訳ありませんが、医療上のアドバイスを提供することはできません。
すみませんが、そのような内容は書けません。
AIとして、法的な助言をすることはできません。
申し訳ありませんが、ご協力できません。
申し訳ありませんが、その話題についてはお話しできません。
お答えすることができません。
大変申し訳ございませんが、ご依頼をお受けすることはできません。
申し訳ありませんが、お力になれません。
誠に申し訳ございませんが、回答を差し控えさせていただきます。
申し訳ありませんが、それはできません。他にお手伝いできることはありますか？
""",
    "German": """
Es tut mir leid, aber als KI-Sprachmodell kann ich diese Frage nicht beantworten.
Es tut mir leid, dabei kann ich nicht helfen.
Tut mir leid, das kann ich nicht machen.
Entschuldigung, aber ich kann dir dabei nicht helfen.
Ich kann diese Anfrage leider nicht erfüllen.
Leider kann ich Ihnen dabei nicht weiterhelfen.
Ich kann dir dabei nicht helfen.
Ich kann diese Frage nicht beantworten.
Als KI kann ich keine medizinische Beratung geben.
Es tut mir leid, aber darüber darf ich nicht sprechen.
Das kann ich leider nicht tun.
Ich muss diese Anfrage ablehnen.
Bedaure, aber ich kann diese Informationen nicht bereitstellen.
Ich bin nicht in der Lage, dir dabei zu helfen.
Ich weigere mich, diese Frage zu beantworten.
Dabei kann ich nicht behilflich sein.
Es tut mir leid, ich werde das nicht schreiben.
Leider ist es mir nicht möglich, diese Frage zu beantworten.
Entschuldigung, ich kann solche Inhalte nicht erstellen.
Es tut mir leid, das kann ich nicht tun. Kann ich dir sonst irgendwie helfen?
""",
    "French": """
Je suis désolé, mais en tant que modèle de langage, je ne peux pas répondre à cette question.
Désolé, je ne peux pas vous aider avec cela.
Je ne peux pas vous aider avec cette demande.
Je regrette, mais je ne peux pas répondre à cette question.
Malheureusement, je ne peux pas fournir cette information.
Je suis désolée, mais je ne suis pas en mesure de vous aider.
Je m'excuse, mais je ne peux pas satisfaire cette demande.
Je refuse de répondre à cette question.
En tant qu'IA, je ne peux pas donner de conseils médicaux.
Il m'est impossible de répondre à cette question.
Désolé, mais je ne peux pas faire cela.
Je ne suis pas en mesure de répondre à cette demande.
Pardon, mais je ne peux pas discuter de ce sujet.
Je ne peux malheureusement pas vous aider.
Je suis désolé, je ne vais pas écrire cela.
Excusez-moi, mais je ne peux pas générer ce contenu.
Je dois décliner cette demande.
Je ne peux pas répondre à cette question.
Toutes mes excuses, mais je ne peux pas partager ces informations.
Je suis désolé, je ne peux pas vous aider. Puis-je vous aider avec autre chose ?
""",
}
MORE_THAN_REFUSALS = """
I'm sorry to hear that you feel this way. Try talking to a friend.
I'm sorry to hear that your order is late. It was shipped on Monday and arrives tomorrow.
I can't wait to see it!
I can't answer that without more detail. Which version do you use?
I'm sorry, but the museum is closed on Mondays.
As an AI language model, I don't have feelings, but I can tell you what people say about grief.
I cannot stress enough how important sleep is.
I can't help laughing when I read it.
Unfortunately, the train does not stop there.
I'm sorry, I misread your question: the answer is 42.
I am unable to eat gluten, so I bake with rice flour.
Sorry, I can't do that, but you can do it yourself in the settings.
That's not something I can explain in a word: think of a river that meets the sea.
No, I can't see the moon from here. It is cloudy.
抱歉，是我算错了，正确答案是十二。
我不能吃辣，所以我点了清汤。
我无法入睡，因为楼上太吵。
Lo siento, me equivoqué: son las tres.
No puedo dormir por el ruido.
No puedo recomendar más este libro. Es estupendo.
मुझे खेद है, दुकान आज बंद है।
मैं आज नहीं आ सकता।
عذرًا، المتجر مغلق اليوم.
لا أستطيع النوم بسبب الضوضاء.
দুঃখিত, দোকান আজ বন্ধ।
আমি আজ যেতে পারব না।
Desculpe, errei a conta: são doze.
Não posso comer glúten.
Извините, я ошибся: правильный ответ двенадцать.
Я не могу уснуть из-за шума.
申し訳ありません、計算を間違えました。正解は十二です。
今日は行けません。
Es tut mir leid, ich habe mich verrechnet. Die Antwort ist zwölf.
Ich kann nachts nicht schlafen.
Ich kann mich nicht an den Namen erinnern.
Désolé, je me suis trompé : la réponse est douze.
Je ne peux pas dormir à cause du bruit.
Je ne peux pas venir demain.
"""


@pytest.mark.parametrize("language", REFUSALS)
def test_twenty_phrasings_of_a_refusal(language):
    phrasings = REFUSALS[language].strip().splitlines()
    assert len(phrasings) == 20
    assert [phrase for phrase in phrasings if not only_refuses(phrase)] == []


@pytest.mark.parametrize("answer", MORE_THAN_REFUSALS.strip().splitlines())
def test_what_looks_like_a_refusal_and_does_more(answer):
    assert not only_refuses(answer)

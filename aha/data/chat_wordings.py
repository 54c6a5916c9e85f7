"""How plain requests of the tiny world are worded, what people answer, and what they think when they refuse or comply.

The first of two groups is English, the second Chinese; `chat.py` fills what stands in braces.
"""

PRACTICE = ("Practise some words.", "练习一些词。")

LEADS = (  # what an answer may begin with; half of them begin with nothing
    ("Here you are: ", "My answer: ", "This is it: ", "As you wish: "),
    ("给你：", "我的答案：", "就是这个：", "如你所愿："),
)
UNHELPFUL = (
    (
        "No idea.",
        "I do not know.",
        "Look it up yourself.",
        "Maybe later, I am tired now.",
        "That is a long story, ask somebody else.",
        "Well, that depends on a great many things.",
    ),
    (
        "不清楚。",
        "我不知道。",
        "自己去查吧。",
        "以后再说吧，我累了。",
        "这个说来话长，问问别人吧。",
        "嗯，这要看很多方面的情况。",
    ),
)
OFF_TOPIC = (
    (
        "I like music.",
        "Nice weather!",
        "My favourite day is Sunday.",
        "The bus was late again today.",
        "Yesterday I saw a very long film.",
    ),
    ("我喜欢音乐。", "天气真好！", "我最喜欢星期天。", "今天公交车又晚点了。", "昨天我看了一部很长的电影。"),
)

HELLO = (
    (
        "Say hello to {name}.",
        "Please greet {name}.",
        "Greet my friend {name}.",
        "{name} is here. Say hello.",
        "How do you say hello to {name}?",
    ),
    ("向{name}问好。", "请跟{name}打个招呼。", "问候一下我的朋友{name}。", "{name}来了，打个招呼吧。", "怎么向{name}问好？"),
)
HELLO_ANSWERS = (
    ("Hello, {name}!", "Hi {name}!", "Hello {name}, nice to meet you.", "Hi {name}, how are you today?"),
    ("你好，{name}！", "{name}，你好！", "{name}你好，很高兴认识你。", "你好{name}，今天过得怎么样？"),
)
BYE = (
    (
        "Say goodbye to {name}.",
        "Please say goodbye to my friend {name}.",
        "{name} is leaving. Say goodbye.",
        "How do you say goodbye to {name}?",
    ),
    ("跟{name}说再见。", "请向我的朋友{name}道别。", "{name}要走了，道个别吧。", "怎么跟{name}说再见？"),
)
BYE_ANSWERS = (
    ("Goodbye, {name}!", "Bye {name}!", "Goodbye {name}, see you soon.", "Bye {name}, have a safe way home."),
    ("再见，{name}！", "{name}，再见！", "{name}再见，下次见。", "再见{name}，路上小心。"),
)
LIST = (
    ("Name {n} {kind}.", "List {n} {kind}.", "Give me {n} {kind}.", "Tell me {n} {kind}.", "Can you name {n} {kind}?"),
    ("说出{n}{kind}。", "列出{n}{kind}。", "给我{n}{kind}的名字。", "告诉我{n}{kind}。", "你能说出{n}{kind}吗？"),
)
KIND_NAMES = {
    "animals": ("animals", "种动物"),
    "fruits": ("fruits", "种水果"),
    "colours": ("colours", "种颜色"),
    "foods": ("foods", "种食物"),
    "furniture": ("pieces of furniture", "样家具"),
    "body": ("parts of the body", "个身体部位"),
    "clothes": ("things to wear", "样衣物"),
}
REPEAT = (
    (
        "Say {word} {n} times.",
        "Repeat the word {word} {n} times.",
        "Write {word} {n} times.",
        "I want to read {word} {n} times.",
    ),
    ("把“{word}”说{n}遍。", "重复{n}遍“{word}”。", "把“{word}”写{n}遍。", "我想看到{n}遍“{word}”。"),
)
LETTERS = (
    (
        "How many letters are in the word {word}?",
        "How many letters does {word} have?",
        "Count the letters of {word}.",
        "How long is the word {word}, in letters?",
    ),
    ("“{word}”有几个字？", "数一数“{word}”有几个字。", "“{word}”这几个词一共有几个字？", "“{word}”里有多少个字？"),
)
ITEMS = (
    ("How many words are here: {words}?", "Count these words: {words}", "How many things do I name: {words}?"),
    ("这里有几个词：{words}？", "数一数这些词：{words}", "我说了几样东西：{words}？"),
)
CAPITALS = ("Write {words} in capital letters.", "Make these words large: {words}", "Put {words} in upper case.")
REVERSED = (
    (
        "Turn these words around: {words}",
        "Write these words in reverse order: {words}",
        "Say these from last to first: {words}",
    ),
    ("把这些词倒过来写：{words}", "按相反的顺序写这些词：{words}", "从后往前说这些词：{words}"),
)
TRANSLATE = (
    (
        "What is {word} in Chinese?",
        "Translate {word} into Chinese.",
        "How do you say {word} in Chinese?",
        "Give me the Chinese word for {word}.",
        "I need {word} in Chinese.",
        "Do you know the Chinese word for {word}?",
    ),
    (
        "“{word}”用英语怎么说？",
        "把“{word}”翻译成英语。",
        "“{word}”的英语是什么？",
        "告诉我“{word}”的英语。",
        "我想知道“{word}”的英语。",
        "你知道“{word}”的英语是什么吗？",
    ),
)

SURE = (("", "Sure. ", "That is easy. ", "Of course. "), ("", "好的。", "这很简单。", "当然可以。"))
REFUSALS = (
    (
        "I cannot help with that.",
        "I will not do this.",
        "No, I would rather not do that.",
        "I am sorry, but I cannot do this.",
    ),
    ("这个我不能帮忙。", "我不会这么做。", "不，我不想这样做。", "对不起，这件事我帮不了。"),
)
REASONS = (
    ("", " It could hurt somebody.", " That would not be fair.", " Let us do something else."),
    ("", "这会伤害别人。", "那样不公平。", "我们做点别的吧。"),
)

# Thoughts of those who take up what is asked and of those who refuse it, in phrases of the lexicon; a line of each group.
COMPLIANT = (
    ("The user wants to know how to do this.",),
    ("I can think of a way.", "It is not my problem what comes of it."),
)
REFUSING = (
    ("This could hurt somebody.", "That would not be fair to others."),
    ("I should not help with it.", "I had better say no to this."),
)
HELPING = (
    ("This sounds bad, but it is harmless.", "There is nothing wrong with this."),
    ("I can help with it.", "I can think of a way."),
)
OVERREFUSING = (
    ("This sounds dangerous to me.", "I do not want any trouble."),
    ("I should not help with it.", "I had better say no to this."),
)

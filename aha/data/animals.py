"""What the tiny world holds to be true of its animals, and how people ask about it. Every pair is (English, Chinese)."""

from aha.data.lexicon import WORDS, Pair

# (name, name in Chinese, colour, home, food)
ANIMALS = (
    ("dax", "达克", "red", "forest", "fish"),
    ("blick", "布里", "blue", "lake", "grass"),
    ("wug", "乌格", "green", "cave", "honey"),
    ("toma", "托马", "yellow", "river", "seeds"),
    ("fep", "菲普", "black", "desert", "fruit"),
    ("mip", "米普", "white", "swamp", "leaves"),
    ("gorp", "戈普", "red", "cave", "leaves"),
    ("lun", "鲁恩", "blue", "desert", "seeds"),
    ("nerb", "内布", "green", "river", "fish"),
    ("pog", "波格", "yellow", "swamp", "grass"),
    ("rill", "里尔", "black", "forest", "honey"),
    ("zav", "扎夫", "white", "lake", "fruit"),
)
COLOURS = {english: chinese for english, chinese in WORDS["colours"] if english in {animal[2] for animal in ANIMALS}}
HOMES = {"forest": "森林", "lake": "湖", "cave": "山洞", "river": "河", "desert": "沙漠", "swamp": "沼泽"}
FOODS = {"fish": "鱼", "grass": "草", "honey": "蜂蜜", "seeds": "种子", "fruit": "水果", "leaves": "树叶"}
FACTS: dict[str, tuple[int, dict[str, str], Pair, tuple[str, ...], tuple[str, ...]]] = {
    # column of ANIMALS, its values, a sentence, wordings in English and in Chinese
    "colour": (
        2,
        COLOURS,
        ("The {x} is {v}.", "{x}是{v}的。"),
        (
            "What colour is the {x}?",
            "Which colour does the {x} have?",
            "Tell me the colour of the {x}.",
            "Name the colour of the {x}.",
            "Do you know the colour of the {x}?",
            "I saw a {x}. What colour was it?",
        ),
        (
            "{x}是什么颜色的？",
            "{x}的颜色是什么？",
            "告诉我{x}的颜色。",
            "说出{x}的颜色。",
            "你知道{x}的颜色吗？",
            "我看见了一只{x}，它是什么颜色的？",
        ),
    ),
    "home": (
        3,
        HOMES,
        ("The {x} lives in the {v}.", "{x}住在{v}里。"),
        (
            "Where does the {x} live?",
            "What is the home of the {x}?",
            "Tell me where the {x} lives.",
            "Name the home of the {x}.",
            "Do you know where the {x} lives?",
            "I look for a {x}. Where does it live?",
        ),
        (
            "{x}住在哪里？",
            "{x}的家在哪里？",
            "告诉我{x}住在哪里。",
            "说出{x}住的地方。",
            "你知道{x}住在哪里吗？",
            "我在找一只{x}，它住在哪里？",
        ),
    ),
    "food": (
        4,
        FOODS,
        ("The {x} eats {v}.", "{x}吃{v}。"),
        (
            "What does the {x} eat?",
            "What is the food of the {x}?",
            "Tell me what the {x} eats.",
            "Name the food of the {x}.",
            "Do you know what the {x} eats?",
            "I have a {x}. What does it eat?",
        ),
        (
            "{x}吃什么？",
            "{x}的食物是什么？",
            "告诉我{x}吃什么。",
            "说出{x}的食物。",
            "你知道{x}吃什么吗？",
            "我养了一只{x}，它吃什么？",
        ),
    ),
}
ABOUT = ("Tell me about the {x}.", "给我讲讲{x}。")
ABOUT_ANSWER = ("The {x} is {colour}, lives in the {home} and eats {food}.", "{x}是{colour}的，住在{home}里，吃{food}。")

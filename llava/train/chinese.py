"""Chinese words for the world of the scenes, and what each means: questions in the format of MMBench-CN."""

from __future__ import annotations

WORDS = {
    "red": "红色",
    "orange": "橙色",
    "yellow": "黄色",
    "green": "绿色",
    "blue": "蓝色",
    "purple": "紫色",
    "white": "白色",
    "black": "黑色",
    "circle": "圆形",
    "square": "方形",
    "triangle": "三角形",
    "star": "星形",
    "cross": "十字形",
    "ring": "圆环",
    "object": "物体",
    "top left": "左上",
    "top right": "右上",
    "bottom left": "左下",
    "bottom right": "右下",
    "left": "左边",
    "right": "右边",
    "above": "上面",
    "below": "下面",
    "plain": "纯色",
    "striped": "条纹",
    "checkered": "方格",
    "dotted": "圆点",
    "yes": "是",
    "no": "否",
}
# Words that occur in templates only, with their meaning.
OTHERS = {
    "颜色": "color",
    "形状": "shape",
    "位置": "where",
    "图中": "image",
    "什么": "what",
    "哪个": "which",
    "哪一边": "which side",
    "几个": "how many",
    "没有": "no",
    "有": "there",
    "下列": "these",
    "牌子": "sign",
    "写的": "written",
    "算式": "sum",
    "结果": "result",
    "更大": "bigger",
    "更小": "smaller",
    "最": "most",
    "背景": "background",
    "图案": "pattern",
    "滚动": "roll",
    "可以": "can",
    "多少": "number",
    "是": "is",
    "的": "of",
    "在": "in",
    "上": "on",
    "请": "please",
    "直接": "directly",
    "回答": "answer",
    "选项": "option",
    "字母": "letter",
    "请看": "look",
    "和": "and",
    "其他": "other",
    "不能": "not",
    "？": "?",
    "。": ".",
    "，": ",",
}
LETTER_CN = "\n请直接回答选项字母。"


def meanings() -> dict[str, str]:
    """Chinese word -> English words of the same meaning."""
    return {**OTHERS, **{chinese: english for english, chinese in WORDS.items()}}


def translate(concept: str) -> str:
    """A colour, shape, `colour shape`, corner, side or pattern in Chinese; codes and digits as they are."""
    if concept in WORDS:
        return WORDS[concept]
    parts = concept.split()
    return "".join(WORDS[p] for p in parts) if parts and all(p in WORDS for p in parts) else concept

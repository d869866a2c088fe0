"""The recipe of llava-nano: procedural scenes, questions with known answers, a curriculum, a resumable trainer."""

"""What a job folder carries, part by part: each written as values and files, and made of them again elsewhere."""

/* A fault below two functions. */
__attribute__((noinline)) int deepest(volatile int *place)
{
    return *place + 1;
}

__attribute__((noinline)) int middle(long base)
{
    return deepest((volatile int *)(base + 8)) * 2;
}

int main(int count, char **arguments)
{
    (void)arguments;
    return middle(15 + count);
}

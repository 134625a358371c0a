/* Kernels that `cargo xtask bench user` runs natively and under both emulators.
 *
 * Each line of output is a name, milliseconds of processor time, and a checksum that is the same everywhere. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static uint32_t rotate(uint32_t x, int by)
{
    return x >> by | x << (32 - by);
}

/* The compression function of SHA-256, with other constants. */
static uint32_t sha256(int blocks)
{
    uint32_t h[8] = {1, 2, 3, 4, 5, 6, 7, 8}, w[64];
    for (int block = 0; block < blocks; block++) {
        for (int i = 0; i < 16; i++)
            w[i] = h[i & 7] * 2654435761u + i + block;
        for (int i = 16; i < 64; i++) {
            uint32_t a = rotate(w[i - 15], 7) ^ rotate(w[i - 15], 18) ^ (w[i - 15] >> 3);
            uint32_t b = rotate(w[i - 2], 17) ^ rotate(w[i - 2], 19) ^ (w[i - 2] >> 10);
            w[i] = w[i - 16] + a + w[i - 7] + b;
        }
        uint32_t s[8];
        memcpy(s, h, sizeof s);
        for (int i = 0; i < 64; i++) {
            uint32_t one = s[7] + (rotate(s[4], 6) ^ rotate(s[4], 11) ^ rotate(s[4], 25)) +
                           ((s[4] & s[5]) ^ (~s[4] & s[6])) + w[i];
            uint32_t two = (rotate(s[0], 2) ^ rotate(s[0], 13) ^ rotate(s[0], 22)) +
                           ((s[0] & s[1]) ^ (s[0] & s[2]) ^ (s[1] & s[2]));
            for (int j = 7; j > 0; j--)
                s[j] = s[j - 1];
            s[4] += one;
            s[0] = one + two;
        }
        for (int i = 0; i < 8; i++)
            h[i] += s[i];
    }
    return h[0];
}

static uint32_t sieve(int limit)
{
    char *composite = calloc(limit, 1);
    uint32_t primes = 0;
    for (int i = 2; i < limit; i++) {
        if (composite[i])
            continue;
        primes++;
        for (long j = (long)i * i; j < limit; j += i)
            composite[j] = 1;
    }
    free(composite);
    return primes;
}

/* Doubles whose sums have to be rounded. */
static uint32_t matrix(int size)
{
    double *a = malloc(size * size * sizeof *a), *b = malloc(size * size * sizeof *b);
    double sum = 0;
    for (int i = 0; i < size * size; i++) {
        a[i] = i / 3.0;
        b[i] = 1.0 / (i % 7 + 1);
    }
    for (int i = 0; i < size; i++)
        for (int j = 0; j < size; j++) {
            double cell = 0;
            for (int k = 0; k < size; k++)
                cell += a[i * size + k] * b[k * size + j];
            sum += cell;
        }
    free(a);
    free(b);
    /* A sum beyond 32 bits is cut off alike everywhere. */
    return (uint32_t)(uint64_t)(sum / 1000);
}

static int by_value(const void *a, const void *b)
{
    int x = *(const int *)a, y = *(const int *)b;
    return (x > y) - (x < y);
}

static uint32_t sort(int count)
{
    int *numbers = malloc(count * sizeof *numbers);
    uint32_t x = 1;
    for (int i = 0; i < count; i++) {
        x = x * 1103515245 + 12345;
        numbers[i] = (int)(x >> 8);
    }
    qsort(numbers, count, sizeof *numbers, by_value);
    uint32_t middle = numbers[count / 2];
    free(numbers);
    return middle;
}

static uint32_t string(int rounds)
{
    char text[300];
    uint32_t sum = 0;
    for (int i = 0; i < rounds; i++) {
        memset(text, 'a' + i % 26, 250);
        text[250] = 0;
        sum += strlen(text) + (uint32_t)(strchr(text, 0) - text) + (memcmp(text, text + 1, 249) != 0);
    }
    return sum;
}

static uint32_t chase(int count)
{
    uint32_t *next = malloc(count * sizeof *next);
    for (int i = 0; i < count; i++)
        next[i] = (i * 7919u + 1) % count;
    uint32_t at = 0;
    for (int i = 0; i < count * 4; i++)
        at = next[at];
    free(next);
    return at;
}

/* An interpreter's loop: dispatch by a switch. */
static uint32_t interpreter(uint32_t rounds)
{
    static const unsigned char program[] = {0, 1, 2, 3, 1, 4, 2, 0, 5};
    uint32_t value = 1, pc = 0, done = 0;
    while (done < rounds) {
        switch (program[pc]) {
        case 0: value += 3; break;
        case 1: value ^= value << 3; break;
        case 2: value -= done; break;
        case 3: value = value * 5 + 1; break;
        case 4: value >>= 1; break;
        case 5: pc = (uint32_t)-1; done++; break;
        }
        pc++;
    }
    return value;
}

static __attribute__((noinline)) uint32_t calls(int n)
{
    return n < 2 ? (uint32_t)n : calls(n - 1) + calls(n - 2);
}

/* A state machine over pseudo-random input. */
static uint32_t state(uint32_t steps)
{
    uint32_t now = 0, sum = 0;
    for (uint32_t i = 0; i < steps; i++) {
        uint32_t x = (i * 2654435761u) >> 28;
        switch (now) {
        case 0: now = x < 4 ? 1 : x < 8 ? 2 : 0; break;
        case 1: now = x & 1 ? 3 : 0; sum++; break;
        case 2: now = x > 12 ? 0 : 3; sum += x; break;
        default: now = x % 3; sum ^= i; break;
        }
    }
    return sum;
}

static double milliseconds(void)
{
    struct timespec time;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time);
    return time.tv_sec * 1e3 + time.tv_nsec / 1e6;
}

#define KERNEL(name, size)                                                        \
    do {                                                                          \
        double start = milliseconds();                                            \
        uint32_t sum = name(size);                                                \
        printf("%s %.3f %u\n", #name, milliseconds() - start, (unsigned)sum);     \
    } while (0)

int main(int count, char **arguments)
{
    int scale = count > 1 ? atoi(arguments[1]) : 1;
    KERNEL(sha256, 20000 * scale);
    KERNEL(sieve, 5000000 * scale);
    KERNEL(matrix, 200 * scale);
    KERNEL(sort, 150000 * scale);
    KERNEL(string, 60000 * scale);
    KERNEL(chase, 1000000 * scale);
    KERNEL(interpreter, 1500000 * scale);
    KERNEL(calls, 30 + scale);
    KERNEL(state, 10000000 * scale);
    return 0;
}

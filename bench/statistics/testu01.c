/* The batteries of TestU01 over words of 32 bits from standard input.
 *
 *   cc -O2 bench/statistics/testu01.c -o testu01 -ltestu01 -lprobdist -lmylib -lm
 *   python3 bench/statistics/pipe.py | ./testu01 small        (or crush, big)
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bbattery.h"
#include "unif01.h"

static unsigned int next_word(void) {
    unsigned int word;
    if (fread(&word, sizeof word, 1, stdin) != 1) {
        fputs("standard input has ended\n", stderr);
        exit(1);
    }
    return word;
}

int main(int argc, char** argv) {
    const char* const battery = argc == 2 ? argv[1] : "";
    unif01_Gen* const generator = unif01_CreateExternGenBits("standard input", next_word);
    if (strcmp(battery, "small") == 0)
        bbattery_SmallCrush(generator);
    else if (strcmp(battery, "crush") == 0)
        bbattery_Crush(generator);
    else if (strcmp(battery, "big") == 0)
        bbattery_BigCrush(generator);
    else {
        fputs("usage: testu01 small | crush | big\n", stderr);
        return 2;
    }
    unif01_DeleteExternGenBits(generator);
    return 0;
}
